"""The list of cases: each is a function of a Ground, marked with `@case`."""

CASES = []


class Case:
    """A named function that fails by raising."""

    def __init__(self, name, body, is_extra):
        self.name = name
        self.body = body
        self.is_extra = is_extra


def case(name, is_extra=False):
    """Puts a function on the list; an extra one runs only on request."""
    def put(body):
        CASES.append(Case(name, body, is_extra))
        return body
    return put
