//! Transcripts as they are written: plain text to acts.
//!
//! `P` is the provider, the program under test; `C` a customer, `M` another mail server. `…` in what P says stands
//! for any text; a line `P: …` for the rest of a reply. What each line can be is in tests/transcripts/README.md.

use restante::smtp::Door;

/// One transcript.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// What the stage looks like, in order.
    pub(crate) given: Vec<String>,
    /// Cuts in which it cannot be played, because how the octets come decides what happens.
    pub(crate) not_in: Vec<String>,
    /// What happens, with line numbers.
    pub(crate) acts: Vec<(usize, Act)>,
}

/// One thing that happens.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// A new connection through this door, under this name.
    Connect(Door, Start, String),
    /// On with this connection.
    Switch(String),
    /// The other side writes these octets.
    Say(Vec<u8>),
    /// The provider says this line.
    Hear(String),
    /// The rest of a reply, whatever it is.
    HearRest,
    /// A whole login: mechanism, name, password.
    Login(String, String, String),
    /// The client's handshake.
    Tls,
    /// The roles have reversed.
    Reversed,
    /// Nothing more is written before all that was said is answered.
    Pause,
    /// The other side closes.
    HangUp,
    /// The provider has closed, and said nothing more.
    Closed,
    /// This many seconds pass.
    Pass(u64),
    /// The provider is told to stop.
    Stop,
    /// The store fails from here on.
    StoreFails,
    /// What is overdue is given up, and what is owed to senders is told.
    Reports,
    /// Something that must be true now.
    Then(String),
}

/// How a connection starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// In clear text.
    Clear,
    /// With TLS.
    Tls,
    /// With TLS, and a certificate of the client.
    Certificate,
}

/// Reads a transcript.
pub(crate) fn read(text: &str) -> Script {
    let mut script = Script::default();
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        if line.is_empty() || line.starts_with('#') || line.starts_with("covers ") {
            continue;
        }
        if let Some(given) = line.strip_prefix("given ") {
            script.given.push(given.to_owned());
            continue;
        }
        if let Some(cuts) = line.strip_prefix("not in ") {
            script.not_in.extend(cuts.split(' ').map(str::to_owned));
            continue;
        }
        let acts = act(line).unwrap_or_else(|| panic!("line {number} is nothing: {line}"));
        script.acts.extend(acts.into_iter().map(|act| (number, act)));
    }
    script
}

fn act(line: &str) -> Option<Vec<Act>> {
    if let Some(fact) = line.strip_prefix("then ") {
        return Some(vec![Act::Then(fact.to_owned())]);
    }
    if let Some(mark) = line.strip_prefix("-- ").and_then(|rest| rest.strip_suffix(" --")) {
        return Some(vec![mark_of(mark)]);
    }
    let (who, what) = line.split_at_checked(1)?;
    let (count, mark, text) = count_of(what)?;
    let each = |number: usize| -> Option<Act> {
        let text = text.replace("{n}", &number.to_string());
        Some(match (who, mark) {
            ("P", ':') if text == "…" => Act::HearRest,
            ("P", ':') => Act::Hear(text),
            ("C" | "M", ':') => Act::Say([expanded(&text).as_bytes(), b"\r\n"].concat()),
            ("C" | "M", '~') => Act::Say(unescaped(&expanded(&text))),
            ("C" | "M", '!') => login(&text)?,
            _ => return None,
        })
    };
    (1..=count).map(each).collect()
}

/// `: text`, `~ text`, `! text`, or ` 20x: text`.
fn count_of(what: &str) -> Option<(usize, char, &str)> {
    let at = what.find([':', '~', '!'])?;
    let (count, rest) = what.split_at(at);
    let count = match count.trim() {
        "" => 1,
        times => times.strip_suffix('x')?.parse().ok()?,
    };
    let mark = rest.chars().next()?;
    let text = &rest[1..];
    Some((count, mark, text.strip_prefix(' ').unwrap_or(text)))
}

fn mark_of(mark: &str) -> Act {
    let words: Vec<_> = mark.split(' ').collect();
    match words.as_slice() {
        ["mx" | "odmr", ..] => {
            let door = if words[0] == "mx" { Door::Mx } else { Door::Odmr };
            let name = words.iter().position(|word| *word == "as").map(|at| words[at + 1]);
            let start = match () {
                () if mark.contains("with certificate") => Start::Certificate,
                () if mark.contains("over tls") => Start::Tls,
                () => Start::Clear,
            };
            Act::Connect(door, start, name.unwrap_or("").to_owned())
        }
        ["tls"] => Act::Tls,
        ["reversed"] => Act::Reversed,
        ["pause"] => Act::Pause,
        ["hangs", "up"] => Act::HangUp,
        ["closed"] => Act::Closed,
        ["stop"] => Act::Stop,
        ["store", "fails"] => Act::StoreFails,
        ["reports"] => Act::Reports,
        [seconds, "seconds", "pass"] => Act::Pass(seconds.parse().expect("a number of seconds")),
        [name] => Act::Switch((*name).to_owned()),
        _ => panic!("no such mark: {mark}"),
    }
}

/// `auth MECHANISM name password`.
fn login(text: &str) -> Option<Act> {
    let mut words = text.strip_prefix("auth ")?.splitn(3, ' ');
    let (mechanism, name, password) = (words.next()?, words.next()?, words.next()?);
    Some(Act::Login(mechanism.to_owned(), name.to_owned(), password.to_owned()))
}

/// `{text*20}` stands for the text twenty times.
pub(crate) fn expanded(text: &str) -> String {
    let mut whole = String::new();
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        let piece = rest[open..].find('}').map(|end| (open + end, &rest[open + 1..open + end]));
        let times = piece.and_then(|(end, inner)| {
            let (text, count) = inner.rsplit_once('*')?;
            Some((end, text.repeat(count.parse().ok()?)))
        });
        let (end, text) = times.unwrap_or((open, "{".to_owned()));
        whole.push_str(&rest[..open]);
        whole.push_str(&text);
        rest = &rest[end + 1..];
    }
    whole + rest
}

/// `\r \n \t \0 \\ \x7f` as octets.
pub(crate) fn unescaped(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&octet, after)) = rest.split_first() {
        rest = after;
        if octet != b'\\' {
            octets.push(octet);
            continue;
        }
        let (&kind, after) = rest.split_first().expect("something behind a backslash");
        rest = after;
        octets.push(match kind {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'0' => 0,
            b'\\' => b'\\',
            b'x' => {
                let (digits, after) = rest.split_at(2);
                rest = after;
                let digits = std::str::from_utf8(digits).expect("hex");
                u8::from_str_radix(digits, 16).expect("hex")
            }
            other => panic!("no such escape: \\{}", char::from(other)),
        });
    }
    octets
}

/// Whether `line` is what `pattern` says.
pub(crate) fn fits(pattern: &str, line: &str) -> bool {
    let mut pieces = pattern.split('…');
    let Some(mut rest) = line.strip_prefix(pieces.next().unwrap_or_default()) else {
        return false;
    };
    let Some(last) = pattern.rsplit_once('…').map(|(_, last)| last) else {
        return rest.is_empty();
    };
    let inner: Vec<_> = pieces.collect();
    for piece in &inner[..inner.len() - 1] {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[test]
fn patterns_and_escapes() {
    assert!(fits("250 …", "250 ok") && fits("250 …", "250 ") && !fits("250 …", "251 ok"));
    assert!(fits("a…b…c", "a1b2c") && !fits("a…b…c", "a1c2b") && !fits("a", "ab"));
    assert_eq!(expanded("x{ab*3}y{z}"), "xabababy{z}");
    assert_eq!(unescaped("a\\r\\n\\x00\\\\"), b"a\r\n\0\\");
}
