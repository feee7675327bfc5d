//! Which calls there are, by method and path.
//!
//! The list is exact, byte for byte: an upstream may fold case, decode escapes or resolve dots, so anything that would
//! have to be folded to be on the list is refused for good.

use http::Method;

/// What a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// A call that is reserved and charged.
    Metered(Metered),
    /// The list of models, or one of them: free of charge.
    Models,
}

/// A call that is reserved and charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metered {
    /// `POST /v1/chat/completions`.
    Chat,
    /// `POST /v1/embeddings`.
    Embeddings,
}

/// Why a request is no call that is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotMetered {
    /// A plain path that is not on the list; a route may let these through unmetered.
    #[error("this path is not metered")]
    Unknown,
    /// It may be a metered path in disguise: no route lets it through.
    #[error("this path is not written plainly")]
    Disguised,
}

const CHAT: &str = "/v1/chat/completions";
const EMBEDDINGS: &str = "/v1/embeddings";
const MODELS: &str = "/v1/models";

/// Tells what a request is, from its method and its path beneath the route's prefix, without the query.
pub fn classify(method: &Method, path: &str) -> Result<Endpoint, NotMetered> {
    if method == Method::POST && path == CHAT {
        return Ok(Endpoint::Metered(Metered::Chat));
    }
    if method == Method::POST && path == EMBEDDINGS {
        return Ok(Endpoint::Metered(Metered::Embeddings));
    }
    if !is_plain(path) {
        return Err(NotMetered::Disguised);
    }
    let models = path.strip_prefix(MODELS);
    if method == Method::GET && models.is_some_and(|id| id.is_empty() || id.starts_with('/')) {
        return Ok(Endpoint::Models);
    }
    // Another version, another prefix, another case, an ending: an upstream may take it for the metered call all the
    // same. And the older completions are as dear.
    let lower = path.to_ascii_lowercase();
    let seems_metered = ["completions", "embeddings"]
        .iter()
        .any(|call| lower.contains(call));
    if seems_metered && method != Method::GET {
        return Err(NotMetered::Disguised);
    }
    Err(NotMetered::Unknown)
}

/// Whether a path means the same to everyone: no escapes, no empty segments, no dots that lead elsewhere.
fn is_plain(path: &str) -> bool {
    let plain =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'@' | b'~');
    let segment = |segment: &str| {
        !segment.is_empty() && segment.bytes().all(plain) && segment.bytes().any(|b| b != b'.')
    };
    path.strip_prefix('/')
        .is_some_and(|path| path.split('/').all(segment))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_exact() {
        let post = |path| classify(&Method::POST, path);
        let get = |path| classify(&Method::GET, path);
        assert_eq!(post(CHAT), Ok(Endpoint::Metered(Metered::Chat)));
        assert_eq!(post(EMBEDDINGS), Ok(Endpoint::Metered(Metered::Embeddings)));
        assert_eq!(get("/v1/models"), Ok(Endpoint::Models));
        assert_eq!(get("/v1/models/meta-llama/llama-3.3"), Ok(Endpoint::Models));
        assert_eq!(get("/v1/models/ft:gpt-4o:acme::1"), Ok(Endpoint::Models));
        assert_eq!(post("/v1/models"), Err(NotMetered::Unknown));
        assert_eq!(get("/v1/modelsx"), Err(NotMetered::Unknown));
        assert_eq!(get(CHAT), Err(NotMetered::Unknown));
        assert_eq!(post("/v1/responses"), Err(NotMetered::Unknown));
        assert_eq!(
            classify(&Method::DELETE, "/v1/models/x"),
            Err(NotMetered::Unknown)
        );
    }

    #[test]
    fn a_metered_path_in_disguise_is_refused_for_good() {
        for path in [
            "/v1/chat/completions/",
            "/v1//chat/completions",
            "//v1/chat/completions",
            "/v1/./chat/completions",
            "/v1/models/../chat/completions",
            "/v1/models/..%2fchat/completions",
            "/v1/chat%2Fcompletions",
            "/v1/%63hat/completions",
            "/v1/chat/completions;x=1",
            "/v1/chat\\completions",
            "/v1/Chat/Completions",
            "/V1/EMBEDDINGS",
            "/v2/chat/completions",
            "/v1/chat/completions.json",
            "/v1/completions",
            "/chat/completions",
            "/v1/chat/completions%00",
            "/v1/chat/completions\u{200b}",
            "v1/chat/completions",
            "",
            "/",
        ] {
            assert_eq!(
                classify(&Method::POST, path),
                Err(NotMetered::Disguised),
                "{path}"
            );
        }
        assert_eq!(
            classify(&Method::GET, "/v1/models/../chat/completions"),
            Err(NotMetered::Disguised)
        );
    }
}
