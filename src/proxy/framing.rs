//! Framing: where a call ends in its connection. What another proxy might read otherwise is refused, so that nobody's call
//! hides in another's body.
//!
//! The body that goes upstream is framed anew in any case. Heads that cannot be read, two lengths that differ and folded
//! lines never come here: the listener refuses them. It takes a length beside chunks for nothing, and ends the connection
//! with that call.

use http::HeaderMap;
use http::header::{HOST, TRANSFER_ENCODING};

use super::refusal::Refusal;

/// Refuses a head that leaves in doubt where its body ends, or whom it is for.
pub fn refuse_doubtful(headers: &HeaderMap) -> Result<(), Refusal> {
    let codings = headers.get_all(TRANSFER_ENCODING);
    if codings
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
        || codings.iter().count() > 1
    {
        return Err(Refusal::BadFraming(
            "`Transfer-Encoding` is not `chunked`, said once",
        ));
    }
    if headers.get_all(HOST).iter().count() > 1 {
        return Err(Refusal::BadFraming("there is more than one `Host`"));
    }
    Ok(())
}
