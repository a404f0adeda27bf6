//! Connections that are kept open while things happen.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use anyvip_virtual::observation::{End, Held};
use anyvip_virtual::scenario::Traffic;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{ANSWER_LIMIT, WINDOW, connect, first_word};
use crate::clock;

/// The connections of one traffic.
pub(super) struct Holding {
    held: Rc<RefCell<Vec<Held>>>,
    tasks: JoinSet<()>,
}

impl Holding {
    /// Opens them all, then keeps asking on each, evenly spread over the period.
    pub(super) async fn begin(traffic: Traffic) -> Holding {
        let window = Rc::new(tokio::sync::Semaphore::new(WINDOW));
        let mut opening = JoinSet::new();
        for number in 0..traffic.flows {
            let (traffic, window) = (traffic.clone(), window.clone());
            opening.spawn_local(async move {
                let _permit = window.acquire().await.ok();
                (number, open(&traffic, traffic.first_port + number).await)
            });
        }
        let mut opened = opening.join_all().await;
        opened.sort_by_key(|(number, _)| *number);
        let held = Rc::new(RefCell::new(Vec::new()));
        let mut tasks = JoinSet::new();
        for (number, connection) in opened {
            let port = traffic.first_port + number;
            let (server, stream) =
                connection.map_or((None, None), |(name, stream)| (Some(name), Some(stream)));
            held.borrow_mut().push(Held { port, server, end: None });
            let Some(stream) = stream else { continue };
            let (held, traffic) = (held.clone(), traffic.clone());
            let phase = traffic.every * u32::from(number) / u32::from(traffic.flows);
            tasks.spawn_local(async move {
                tokio::time::sleep(phase).await;
                let end = keep_asking(stream, &traffic).await;
                if let Some(held) = held.borrow_mut().get_mut(usize::from(number)) {
                    held.end = Some((clock::now(), end));
                }
            });
        }
        Holding { held, tasks }
    }

    /// Closes what is still open and tells how each fared.
    pub(super) async fn end(mut self) -> Vec<Held> {
        self.tasks.shutdown().await;
        self.held.take()
    }
}

async fn open(traffic: &Traffic, port: u16) -> Option<(String, TcpStream)> {
    let attempt = async {
        let mut stream = connect(traffic, port).await?;
        let server = ask(&mut stream).await?;
        Ok::<_, io::Error>((server, stream))
    };
    timeout(traffic.timeout.max(Duration::from_secs(1)), attempt).await.ok()?.ok()
}

async fn keep_asking(mut stream: TcpStream, traffic: &Traffic) -> End {
    let mut period = tokio::time::interval(traffic.every);
    loop {
        period.tick().await;
        match timeout(traffic.timeout, ask(&mut stream)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return End::Closed,
            Ok(Err(_)) => return End::Reset,
            Err(_) => return End::Stalled,
        }
    }
}

async fn ask(stream: &mut TcpStream) -> io::Result<String> {
    stream.write_all(b"still?\n").await?;
    let mut buffer = [0; ANSWER_LIMIT];
    let read = stream.read(&mut buffer).await?;
    first_word(&buffer[..read])
}
