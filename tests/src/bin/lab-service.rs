//! `lab-service serve NAME PORT`: an HTTP service that answers with its name.
//! `lab-service ask ADDRESS PORT`: asks one once and prints the body.
//! `lab-service probe ADDRESS PORT PATH`: asks again and again until it is ended, each time on a new connection, and prints when (in
//! microseconds), how long it took, and the status or the kind of error.
#![forbid(unsafe_code)]

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, thread};

const PATIENCE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["serve", name, port] => port.parse().map_err(io::Error::other).and_then(|port| serve(name, port)),
        ["ask", address, port] => format_address(address, port).and_then(ask),
        ["probe", address, port, path] => format_address(address, port).and_then(|at| probe(at, path)),
        _ => Err(io::Error::other("usage: serve NAME PORT | ask ADDRESS PORT | probe ADDRESS PORT PATH")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab-service: {error}");
            ExitCode::FAILURE
        }
    }
}

fn format_address(address: &str, port: &str) -> io::Result<SocketAddr> {
    let address: IpAddr = address.parse().map_err(io::Error::other)?;
    Ok(SocketAddr::new(address, port.parse().map_err(io::Error::other)?))
}

fn serve(name: &str, port: u16) -> io::Result<()> {
    // One socket takes both families unless the kernel says otherwise; then the second bind is needed.
    let six = TcpListener::bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port))?;
    let four = TcpListener::bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)).ok();
    println!("ready");
    if let Some(four) = four {
        let name = name.to_owned();
        thread::spawn(move || accept(&four, &name));
    }
    accept(&six, name);
    Ok(())
}

fn accept(listener: &TcpListener, name: &str) {
    for stream in listener.incoming().flatten() {
        let name = name.to_owned();
        thread::spawn(move || answer(stream, &name));
    }
}

fn answer(mut stream: TcpStream, name: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        request.extend_from_slice(&buffer[..length]);
    }
    let length = name.len() + 1;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n";
    write!(stream, "{head}Content-Length: {length}\r\n\r\n{name}\n")
}

fn ask(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("half an answer"))?;
    print!("{body}");
    Ok(())
}

fn probe(address: SocketAddr, path: &str) -> io::Result<()> {
    let begun = Instant::now();
    let mut lines = io::stdout().lock();
    loop {
        let asked = begun.elapsed();
        let outcome = match status(address, path) {
            Ok(status) => status,
            Err(error) => format!("{:?}", error.kind()),
        };
        writeln!(lines, "{} {} {outcome}", asked.as_micros(), (begun.elapsed() - asked).as_micros())?;
        thread::sleep(Duration::from_millis(1));
    }
}

fn status(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(status.to_owned())
}
