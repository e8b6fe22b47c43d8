use std::{
    fs,
    path::Path,
    sync::{Mutex, mpsc as blocking},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_util::task::TaskTracker;

use super::*;
use crate::{
    config::{self, Source, System},
    fixture::free_port,
    meter::Ended,
    policy::{IpSet, ListName},
};

mod outages;
mod told;

const PATIENCE: Duration = Duration::from_secs(20);

/// A supervisor whose second reading of the configuration, and every later one, blocks until it is
/// let go.
struct Blocked {
    handle: Handle,
    begun: tokio::sync::Mutex<mpsc::UnboundedReceiver<()>>,
    /// Dropped, it lets all readings go: the runtime of a test waits for them.
    _release: blocking::Sender<()>,
}

impl Blocked {
    async fn start(config: &Path) -> Self {
        let source = Source { file: Some(config.to_owned()), ..Source::default() };
        let loaded = config::load(&source, &System).unwrap();
        let (release, blocked) = blocking::channel::<()>();
        let (begin, begun) = mpsc::unbounded_channel();
        let blocked = Mutex::new(blocked);
        let read: PlanSource = Arc::new(move || {
            begin.send(()).unwrap();
            let _ = blocked.lock().unwrap().recv();
            config::load(&source, &System)
        });
        let tasks = TaskTracker::new();
        let handle = Handle::start(
            read,
            loaded,
            Tolerance::Nothing,
            Means {
                budgets: Budgets::new(64, true),
                gate: Gate::new(std::time::SystemTime::now),
                alarm: Alarm::default(),
                events: Events::default(),
                inherited: Inherited::default(),
            },
            &tasks,
        )
        .await;
        Self { handle: handle.unwrap(), begun: begun.into(), _release: release }
    }

    /// Asks for a reload, and runs `meanwhile` once it cannot go on.
    async fn meanwhile(&self, meanwhile: impl Future<Output = ()>) -> Result<Applied, Arc<ReloadError>> {
        let begun = async {
            self.begun.lock().await.recv().await.unwrap();
            timeout(PATIENCE, meanwhile).await.unwrap();
            // Ends a reload that would wait without end otherwise.
            self.handle.stop_at_once();
            timeout(PATIENCE, self.handle.stop()).await.unwrap();
        };
        tokio::join!(self.handle.reload(), begun).0
    }
}

pub(super) fn config(dir: &Path, text: &str) -> std::path::PathBuf {
    let path = dir.join("portway.toml");
    fs::write(&path, text).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_does_not_wait_for_a_configuration_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("publish = [\"127.0.0.1:{}:127.0.0.1:9\"]\n", free_port());
    let blocked = Blocked::start(&config(dir.path(), &text)).await;
    let outcome = blocked.meanwhile(async {}).await;
    assert!(matches!(&*outcome.unwrap_err(), ReloadError::Stopping));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_no_longer_be_there_is_cut_while_a_configuration_cannot_be_read() {
    let (dir, target) = (tempfile::tempdir().unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let (at, behind) = (format!("127.0.0.1:{}", free_port()), target.local_addr().unwrap());
    let text =
        format!("[lists]\nblocked = []\n[[mapping]]\npublish = \"{at}:{behind}\"\ndeny = \"@blocked\"\n");
    let blocked = Blocked::start(&config(dir.path(), &text)).await;
    let mut client = TcpStream::connect(&at).await.unwrap();
    let (mut inside, _) = target.accept().await.unwrap();
    client.write_all(b"?").await.unwrap();
    inside.read_exact(&mut [0]).await.unwrap();
    let outcome = blocked.meanwhile(async {
        let everyone = Arc::new(IpSet::parse("0.0.0.0/0\n").unwrap());
        blocked.handle.gate().replace_list(&ListName("blocked".into()), everyone);
        // The end, or a reset.
        let _ = client.read(&mut [0]).await;
    });
    assert!(outcome.await.is_err());
}
