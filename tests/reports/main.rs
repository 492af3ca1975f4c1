//! Reports: who is told what, in which form, once; and mail that is not collected in time.

mod exchangers;
mod fate;
mod form;
mod house;
mod time;
