//! The services of the lab.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::harness::RouterLab;

/// A service on `lan2`, on a thread of its own.
pub(super) struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How often a server looks whether it has to stop.
const TURN: Duration = Duration::from_millis(50);

impl Server {
    /// Sends back what comes.
    pub(super) fn tcp(lab: &RouterLab, port: u16) -> Self {
        Self::of_streams(lab, port, |mut stream| {
            let mut all = Vec::new();
            if stream.read_to_end(&mut all).is_ok() {
                let _ = stream.write_all(&all);
            }
        })
    }

    /// Answers everything as a TLS server answers what it does not like: with an alert.
    pub(super) fn tls(lab: &RouterLab, port: u16) -> Self {
        Self::of_streams(lab, port, |mut stream| {
            let mut first = [0; 5];
            if stream.read_exact(&mut first).is_ok() {
                let _ = stream.write_all(&[0x15, 3, 3, 0, 2, 2, 40]);
            }
        })
    }

    fn of_streams(lab: &RouterLab, port: u16, serve: fn(TcpStream)) -> Self {
        let listener = lab.inside("lan2", || TcpListener::bind(("0.0.0.0", port)).expect("a free port"));
        listener.set_nonblocking(true).expect("a socket");
        Self::run(move || match listener.accept() {
            Ok((stream, _)) => {
                let _ = stream.set_nonblocking(false);
                let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
                std::thread::spawn(move || serve(stream));
            }
            Err(_) => crate::harness::pass(TURN),
        })
    }

    /// Sends every datagram back.
    pub(super) fn udp(lab: &RouterLab, port: u16) -> Self {
        let socket = lab.inside("lan2", || UdpSocket::bind(("0.0.0.0", port)).expect("a free port"));
        socket.set_read_timeout(Some(TURN)).expect("a socket");
        Self::run(move || {
            let mut datagram = [0; 1500];
            if let Ok((length, from)) = socket.recv_from(&mut datagram) {
                let _ = socket.send_to(&datagram[..length], from);
            }
        })
    }

    fn run(mut turn: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let its = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !its.load(Ordering::Relaxed) {
                turn();
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
