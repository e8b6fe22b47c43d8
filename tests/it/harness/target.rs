//! Targets: what stands behind the daemon, on an address and port of its own.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use super::{Content, DEADLINE, own_addr, reset};

/// A TCP target: a thread for each connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct TcpTarget {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    accepted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TcpTarget {
    /// Gives each connection to `handler`.
    pub(crate) fn serve(handler: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::serve_at(own_addr(0), handler)
    }

    /// The same on a given address.
    pub(crate) fn serve_at(addr: SocketAddr, handler: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(addr).expect("a target listens");
        // A client that finds the queue full is connected all the same, and what it says then, even its end, comes
        // with a retransmission: on a busy machine that is half a minute later. The standard library asks for 128.
        rustix::net::listen(&listener, 4096).expect("a listener listens");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let (stop, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&accepted));
        let thread = std::thread::spawn(move || {
            let handler = Arc::new(handler);
            for stream in listener.incoming().flatten() {
                if stopped.load(SeqCst) {
                    break;
                }
                count.fetch_add(1, SeqCst);
                let handler = Arc::clone(&handler);
                std::thread::spawn(move || handler(stream));
            }
        });
        Self { addr, accepted, stop, thread: Some(thread) }
    }

    /// Hands each connection to the test.
    pub(crate) fn manual() -> (Self, Connections) {
        let (give, take) = mpsc::channel();
        let give = Mutex::new(give);
        let target = Self::serve(move |stream| {
            let _ = give.lock().expect("no thread panics here").send(stream);
        });
        (target, Connections(take))
    }

    /// Sends back what it gets, and ends when the client ends.
    pub(crate) fn echo() -> Self {
        Self::echo_at(own_addr(0))
    }

    /// The same on a given address.
    pub(crate) fn echo_at(addr: SocketAddr) -> Self {
        Self::serve_at(addr, |mut stream| {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(len @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..len]).is_err() {
                    return;
                }
            }
        })
    }

    /// Reads to the end of the stream, and only then answers with `len` bytes of `content`.
    pub(crate) fn answers_after_eof(content: &Content, len: u64) -> Self {
        let content = content.clone();
        Self::serve(move |mut stream| {
            if io::copy(&mut stream, &mut io::sink()).is_ok() {
                let _ = content.send(&mut stream, len);
            }
        })
    }

    /// Writes `len` bytes of `content` and closes at once. (Input that it did not read would make that a reset.)
    pub(crate) fn writes_and_closes(content: &Content, len: u64) -> Self {
        let content = content.clone();
        Self::serve(move |mut stream| {
            let _ = content.send(&mut stream, len);
        })
    }

    /// Reads one byte and resets the connection.
    pub(crate) fn resets() -> Self {
        Self::serve(|mut stream| {
            let _ = stream.read(&mut [0]);
            reset(stream);
        })
    }

    /// How many connections it accepted.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(SeqCst)
    }
}

impl Drop for TcpTarget {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        // Wakes the accept, and takes the listener away before the test goes on.
        if TcpStream::connect(self.addr).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// The connections of a [`TcpTarget::manual`], in the order of their arrival.
#[derive(Debug)]
pub(crate) struct Connections(mpsc::Receiver<TcpStream>);

impl Connections {
    /// The next one.
    #[track_caller]
    pub(crate) fn next(&self) -> TcpStream {
        let stream = self.0.recv_timeout(DEADLINE).expect("a connection reaches the target");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket takes a timeout");
        stream.set_write_timeout(Some(DEADLINE)).expect("a socket takes a timeout");
        stream
    }
}

/// A datagram: from where, and what.
pub(crate) type Datagram = (SocketAddr, Vec<u8>);

/// A UDP target, until it is dropped. It remembers each sender and datagram, in order.
#[derive(Debug)]
pub(crate) struct UdpTarget {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    got: Arc<Mutex<Vec<Datagram>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl UdpTarget {
    /// Sends every datagram back.
    pub(crate) fn echo() -> Self {
        Self::start(own_addr(0), true)
    }

    /// The same on a given address.
    pub(crate) fn echo_at(addr: SocketAddr) -> Self {
        Self::start(addr, true)
    }

    /// Never answers.
    pub(crate) fn silent() -> Self {
        Self::start(own_addr(0), false)
    }

    /// The same on a given address.
    pub(crate) fn silent_at(addr: SocketAddr) -> Self {
        Self::start(addr, false)
    }

    fn start(addr: SocketAddr, answer: bool) -> Self {
        let socket = UdpSocket::bind(addr).expect("a target binds");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket takes a timeout");
        let addr = socket.local_addr().expect("a bound socket has an address");
        let (got, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (seen, stopped) = (Arc::clone(&got), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !stopped.load(SeqCst) {
                let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
                seen.lock().expect("no thread panics here").push((from, buffer[..len].to_vec()));
                if answer {
                    let _ = socket.send_to(&buffer[..len], from);
                }
            }
        });
        Self { addr, got, stop, thread: Some(thread) }
    }

    /// What arrived so far: from where, and what.
    pub(crate) fn got(&self) -> Vec<Datagram> {
        self.got.lock().expect("no thread panics here").clone()
    }
}

impl Drop for UdpTarget {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
