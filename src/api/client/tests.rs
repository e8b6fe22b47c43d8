//! The client against a small server that speaks as the API does, and against others.

use std::{convert::Infallible, os::unix::fs::PermissionsExt as _};

use http_body_util::BodyExt as _;
use hyper::{server, service::service_fn};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixListener,
};

use super::*;

/// A socket in a directory of its own, on which something listens.
pub(crate) struct Served {
    dir: TempDir,
}

impl Served {
    /// Answers each request by `answer`: method, path with its query, and body to status and JSON.
    pub(crate) fn with(answer: impl Fn(&str, &str, &str) -> (u16, String) + Send + Sync + 'static) -> Self {
        let answer = std::sync::Arc::new(answer);
        Self::accepting(move |stream| {
            let answer = std::sync::Arc::clone(&answer);
            async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let answer = std::sync::Arc::clone(&answer);
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.map(http_body_util::Collected::to_bytes);
                        let body = String::from_utf8(body.unwrap_or_default().to_vec()).unwrap_or_default();
                        let path = head.uri.path_and_query().map_or("", |path| path.as_str());
                        let (status, json) = answer(head.method.as_str(), path, &body);
                        let response = Response::builder().status(status);
                        Ok::<_, Infallible>(response.body(Full::new(Bytes::from(json))).expect("plain"))
                    }
                });
                let _ =
                    server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            }
        })
    }

    /// Writes `bytes` to each client after its first bytes, and closes.
    fn raw(bytes: &'static [u8]) -> Self {
        Self::accepting(move |mut stream| async move {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(bytes).await;
        })
    }

    fn accepting<F: Future<Output = ()> + Send>(serve: impl Fn(UnixStream) -> F + Send + 'static) -> Self {
        let served = Self { dir: tempfile::tempdir().unwrap() };
        let listener = std::os::unix::net::UnixListener::bind(served.socket()).unwrap();
        listener.set_nonblocking(true).unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = UnixListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    serve(stream).await;
                }
            });
        });
        served
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("portway.sock")
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(vec![self.socket()])
    }
}

/// Says what was asked.
fn echo() -> Served {
    Served::with(|method, path, body| {
        let json = serde_json::json!({ "asked": format!("{method} {path} {body}") });
        (200, json.to_string())
    })
}

#[tokio::test]
async fn a_request_arrives_with_its_path_and_its_body() {
    let served = echo();
    for (ask, asked) in [
        (Ask::get("/v1/status"), "GET /v1/status "),
        (Ask::get("/v1/mappings").step("8080/tcp"), "GET /v1/mappings/8080%2Ftcp "),
        (
            Ask::post("/v1/bans").body(serde_json::json!({ "client": "a" })),
            "POST /v1/bans {\"client\":\"a\"}",
        ),
        (Ask::put("/v1/mappings").step("ü ?"), "PUT /v1/mappings/%C3%BC%20%3F "),
        (
            Ask::delete("/v1/bans")
                .with("client", Some("2001:db8::/32"))
                .with("x", Some("&"))
                .with("y", None),
            "DELETE /v1/bans?client=2001%3Adb8%3A%3A%2F32&x=%26 ",
        ),
    ] {
        assert_eq!(served.client().ask(&ask).await.unwrap().json["asked"], asked);
    }
}

#[tokio::test]
async fn a_long_answer_is_read_to_its_end() {
    let served =
        Served::with(|_, _, _| (200, serde_json::json!({ "long": "x".repeat(3 << 20) }).to_string()));
    let answer = served.client().ask(&Ask::get("/")).await.unwrap();
    assert_eq!(answer.json["long"].as_str().unwrap().len(), 3 << 20);
}

#[tokio::test]
async fn a_refusal_carries_its_status_and_its_problems() {
    let served = Served::with(|_, _, _| {
        (422, r#"{"error": "it is wrong", "problems": [{"message": "here", "line": 3}]}"#.to_owned())
    });
    let error = served.client().ask(&Ask::post("/v1/reload")).await.unwrap_err();
    let ClientError::Refused { status: 422, failure, .. } = &error else { panic!("{error:?}") };
    assert_eq!((&*failure.error, failure.problems[0].line), ("it is wrong", Some(3)));
    assert_eq!((error.to_string(), error.help()), ("it is wrong".to_owned(), None));
}

#[tokio::test]
async fn without_a_daemon_each_place_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (missing, stale) = (dir.path().join("missing"), dir.path().join("stale"));
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let error = Client::new(vec![missing.clone(), stale.clone()]).ask(&Ask::get("/")).await.unwrap_err();
    let places = format!("no portway daemon answers at {} or {}", missing.display(), stale.display());
    assert_eq!(error.to_string(), places);
    assert!(error.help().unwrap().starts_with("is it running?"));
    // The first that a daemon listens on is taken.
    let served = echo();
    let client = Client::new(vec![missing, stale, served.socket()]);
    client.ask(&Ask::get("/")).await.unwrap();
}

#[tokio::test]
async fn a_socket_that_may_not_be_opened_is_named() {
    let served = echo();
    std::fs::set_permissions(served.socket(), std::fs::Permissions::from_mode(0o000)).unwrap();
    // The administrator may open any; another test asks as another user.
    if let Err(error) = served.client().ask(&Ask::get("/")).await {
        assert!(error.to_string().ends_with("may not be opened: permission denied"), "{error}");
        assert_eq!(error.help().as_deref(), Some("use sudo"));
    }
}

#[tokio::test]
async fn a_daemon_that_ends_in_the_middle_is_told_from_another_program() {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{\"a\":";
    for (bytes, ended) in [
        (&b""[..], true),
        (HEAD, true),
        (b"HTTP/1.1 200 OK\r\n", true),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", false),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>", false),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}", false),
    ] {
        let shown = String::from_utf8_lossy(bytes).into_owned();
        let error = Served::raw(bytes).client().ask(&Ask::get("/")).await.expect_err(&shown);
        match error {
            ClientError::Ended(_) => assert!(ended, "{shown}"),
            ClientError::Stranger { .. } => assert!(!ended, "{shown}"),
            error => panic!("{shown}: {error}"),
        }
    }
}

#[tokio::test]
async fn events_come_one_by_one_until_the_daemon_ends() {
    const STREAM: &[u8] =
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
        23\r\n: hello\n\nid: 1\ndata: {\"id\":1}\n\ndata\r\n\
        e\r\n: {\"id\":2}\n\n\n\n\r\n";
    let mut events = Served::raw(STREAM).client().follow(Ask::get("/v1/events"), Some(0)).await.unwrap();
    for id in [1, 2] {
        let Ok(Some(Received::Event { event, .. })) = events.next().await else { panic!("event {id}") };
        assert_eq!(event.id, id);
    }
    assert!(matches!(events.next().await, Err(ClientError::Ended(_))));
    let refusing = Served::with(|_, _, _| (503, r#"{"error": "too many clients"}"#.to_owned()));
    let refused = refusing.client().follow(Ask::get("/v1/events"), None).await;
    assert!(matches!(refused, Err(ClientError::Refused { status: 503, .. })));
    let other = echo().client().follow(Ask::get("/v1/events"), None).await;
    assert!(matches!(other, Err(ClientError::Stranger { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_hangs_is_not_waited_for_without_end() {
    // The server is on the real clock and never answers.
    let served = Served::accepting(|_stream| std::future::pending());
    let error = served.client().ask(&Ask::get("/")).await.unwrap_err();
    assert!(matches!(error, ClientError::Slow { .. }), "{error}");
}
