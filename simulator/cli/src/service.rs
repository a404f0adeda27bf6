//! The built-in service: says the node's name over HTTP, TCP, UDP and DNS.
//!
//! It is a process of its own, so that it can be killed, stopped and started like a real one. It listens on every
//! address; a UDP answer leaves from the address that was asked (`IP_PKTINFO`), else clients would drop it.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::process::ExitCode;

use anyvip_virtual::lab::ServicePorts;
use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::dns;

/// Longest answer that may be asked for.
const MOST_GIVEN: usize = 1 << 20;

/// Longest request that is read.
const REQUEST_LIMIT: u64 = 16 * 1024;

/// Runs until killed.
pub(crate) fn main(name: &str, ports: ServicePorts) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    match runtime.block_on(serve(name, ports)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &io::Error) -> ExitCode {
    eprintln!("anyvip-sim service: {error}");
    ExitCode::FAILURE
}

async fn serve(name: &str, ports: ServicePorts) -> io::Result<()> {
    let everywhere =
        |port| [SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), (Ipv6Addr::UNSPECIFIED, port).into()];
    let mut tasks = tokio::task::JoinSet::new();
    let datagrams = [(ports.udp, echo as Responder), (ports.dns, dns::answer)];
    for (port, respond) in datagrams {
        for address in port.into_iter().flat_map(everywhere) {
            let socket = bind(address, Type::DGRAM, Protocol::UDP)?;
            let name = name.to_owned();
            // A blocking loop a family: two system calls a question, no wakeups between.
            std::thread::spawn(move || match address {
                SocketAddr::V4(_) => udp_v4(&socket, &name, respond),
                SocketAddr::V6(_) => udp_v6(&socket, &name, respond),
            });
        }
    }
    for address in ports.http.into_iter().flat_map(everywhere) {
        let listener = listen(address)?;
        let name = name.to_owned();
        tasks.spawn(accept(listener, name, |stream, name| async move { http(stream, &name).await }));
    }
    for address in ports.tcp.into_iter().flat_map(everywhere) {
        let listener = listen(address)?;
        let name = name.to_owned();
        tasks.spawn(accept(listener, name, |stream, name| async move { lines(stream, &name).await }));
    }
    println!("ready");
    while tasks.join_next().await.is_some() {}
    std::future::pending().await
}

fn bind(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == Type::DGRAM {
        // The first needs CAP_NET_ADMIN of the host and is only a wish; without it the system's limit counts.
        let wish = 4 * 1024 * 1024;
        if setsockopt(&socket, sockopt::RcvBufForce, &wish).is_err() {
            socket.set_recv_buffer_size(wish)?;
        }
        match address {
            SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
        }
    }
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bind(address, Type::STREAM, Protocol::TCP)?;
    socket.set_nonblocking(true)?;
    socket.listen(4096)?;
    TcpListener::from_std(socket.into())
}

async fn accept<F, S>(listener: TcpListener, name: String, serve: F)
where
    F: Fn(TcpStream, String) -> S + Send + 'static,
    S: Future<Output = io::Result<()>> + Send + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // A connection that breaks concerns only its client.
                tokio::spawn(serve(stream, name.clone()));
            }
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
}

/// Any request is answered with the name; one request a connection.
async fn http(mut stream: TcpStream, name: &str) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader).take(REQUEST_LIMIT);
    let mut request = String::new();
    reader.read_line(&mut request).await?;
    let mut line = String::new();
    while reader.read_line(&mut line).await? > 2 {
        line.clear();
    }
    let body = if request.starts_with("HEAD ") { String::new() } else { format!("{name}\n") };
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        name.len() + 1
    );
    writer.write_all(answer.as_bytes()).await?;
    writer.shutdown().await
}

/// Each line comes back with the name in front.
async fn lines(mut stream: TcpStream, name: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    loop {
        line.clear();
        if (&mut reader).take(REQUEST_LIMIT).read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let mut answer = format!("{name} {}", line.trim_end());
        // `give N` asks for an answer of so many octets.
        if let Some(wanted) = line.strip_prefix("give ").and_then(|number| number.trim().parse().ok()) {
            answer.extend(std::iter::repeat_n(
                '.',
                usize::min(wanted, MOST_GIVEN).saturating_sub(answer.len()),
            ));
        }
        answer.push('\n');
        writer.write_all(answer.as_bytes()).await?;
    }
}

/// From a question and the node's name to the answer, if it deserves one.
type Responder = fn(&[u8], &str) -> Option<Vec<u8>>;

/// The name, and what was said. An answer in fragments would measure something else.
fn echo(question: &[u8], name: &str) -> Option<Vec<u8>> {
    const MOST: usize = 1024;
    Some([name.as_bytes(), b" ", question.get(..MOST).unwrap_or(question)].concat())
}

fn udp_v4(socket: &Socket, name: &str, respond: Responder) {
    let mut buffer = [0; 9000];
    loop {
        let mut space = cmsg_space!(libc::in_pktinfo);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let Ok(received) =
            recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty())
        else {
            continue;
        };
        let (Some(from), Ok(mut controls)) = (received.address, received.cmsgs()) else { continue };
        let asked = controls.find_map(|control| match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => Some(info),
            _ => None,
        });
        let Some(mut info) = asked else { continue };
        // The address asked becomes the source; the route back chooses the interface.
        info.ipi_ifindex = 0;
        info.ipi_spec_dst = info.ipi_addr;
        let bytes = received.bytes;
        let Some(answer) = respond(&buffer[..bytes], name) else { continue };
        let control = [ControlMessage::Ipv4PacketInfo(&info)];
        let _ =
            sendmsg(socket.as_raw_fd(), &[IoSlice::new(&answer)], &control, MsgFlags::empty(), Some(&from));
    }
}

fn udp_v6(socket: &Socket, name: &str, respond: Responder) {
    let mut buffer = [0; 9000];
    loop {
        let mut space = cmsg_space!(libc::in6_pktinfo);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let Ok(received) =
            recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty())
        else {
            continue;
        };
        let (Some(from), Ok(mut controls)) = (received.address, received.cmsgs()) else { continue };
        let asked = controls.find_map(|control| match control {
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(info),
            _ => None,
        });
        let Some(mut info) = asked else { continue };
        info.ipi6_ifindex = 0;
        let bytes = received.bytes;
        let Some(answer) = respond(&buffer[..bytes], name) else { continue };
        let control = [ControlMessage::Ipv6PacketInfo(&info)];
        let _ =
            sendmsg(socket.as_raw_fd(), &[IoSlice::new(&answer)], &control, MsgFlags::empty(), Some(&from));
    }
}
