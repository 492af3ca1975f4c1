//! Writing and reading fields as octets: fixed widths, big-endian, everything of variable length with its
//! length before it.
//!
//! Called by the codecs of records, marks and keys. It never panics on foreign octets.

/// The octets are not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Garbled;

/// A growing row of fields.
#[derive(Debug, Default)]
pub(crate) struct Out(pub(crate) Vec<u8>);

impl Out {
    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }
    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }
    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }
    pub(crate) fn u128(&mut self, value: u128) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }
    pub(crate) fn flag(&mut self, value: bool) {
        self.u8(u8::from(value));
    }
    /// Text up to 4 GiB; nothing that is kept comes near.
    pub(crate) fn text(&mut self, value: &str) {
        self.u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(value.as_bytes());
    }
    pub(crate) fn maybe_text(&mut self, value: Option<&str>) {
        self.flag(value.is_some());
        if let Some(text) = value {
            self.text(text);
        }
    }
}

/// What is left of a row of fields.
#[derive(Clone, Copy, Debug)]
pub(crate) struct In<'a>(pub(crate) &'a [u8]);

impl<'a> In<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Garbled> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Garbled)?;
        self.0 = rest;
        Ok(taken)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Garbled> {
        self.take(N)?.try_into().map_err(|_| Garbled)
    }
    pub(crate) fn u8(&mut self) -> Result<u8, Garbled> {
        Ok(self.array::<1>()?[0])
    }
    pub(crate) fn u32(&mut self) -> Result<u32, Garbled> {
        Ok(u32::from_be_bytes(self.array()?))
    }
    pub(crate) fn u64(&mut self) -> Result<u64, Garbled> {
        Ok(u64::from_be_bytes(self.array()?))
    }
    pub(crate) fn u128(&mut self) -> Result<u128, Garbled> {
        Ok(u128::from_be_bytes(self.array()?))
    }
    pub(crate) fn flag(&mut self) -> Result<bool, Garbled> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Garbled),
        }
    }
    pub(crate) fn text(&mut self) -> Result<&'a str, Garbled> {
        let len = usize::try_from(self.u32()?).map_err(|_| Garbled)?;
        std::str::from_utf8(self.take(len)?).map_err(|_| Garbled)
    }
    pub(crate) fn maybe_text(&mut self) -> Result<Option<&'a str>, Garbled> {
        if self.flag()? { self.text().map(Some) } else { Ok(None) }
    }
    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), Garbled> {
        if self.0.is_empty() { Ok(()) } else { Err(Garbled) }
    }
}
