//! `anyvip-sim hash predict`: where one flow lands.

use std::net::IpAddr;

use anyvip_ecmp::{Addresses, Flow, Packet};
use clap::Args;
use serde_json::{Value, json};

use super::install::Install;
use super::kernel::Kernel;
use super::{Error, Protocol, Router, askable, protocol_text, say, say_json, threshold};

#[derive(Args, Debug)]
pub(crate) struct Predict {
    #[command(flatten)]
    router: Router,
    /// How the next hops are installed: plain, group, resilient:BUCKETS, slots:N, or a model: maglev:PLACES, rendezvous, modulo.
    #[arg(long, default_value = "group", value_name = "WAY")]
    install: Install,
    /// The client.
    #[arg(long, value_name = "ADDRESS")]
    src: IpAddr,
    /// The service.
    #[arg(long, value_name = "ADDRESS")]
    dst: IpAddr,
    /// tcp, udp, icmp, or a number.
    #[arg(long, default_value = "tcp", value_parser = Protocol::parse, value_name = "NAME|N")]
    proto: Protocol,
    /// The client's port.
    #[arg(long, default_value_t = 0, value_name = "N")]
    sport: u16,
    /// The service's port.
    #[arg(long, default_value_t = 0, value_name = "N")]
    dport: u16,
    /// The IPv6 flow label, decimal or 0x….
    #[arg(long, value_parser = label, value_name = "N")]
    flow_label: Option<u32>,
    /// The packet is a fragment: the router sees no ports.
    #[arg(long)]
    fragment: bool,
    /// Servers, counted from 0, whose link is down on the router (plain and group).
    #[arg(long, value_delimiter = ',', value_name = "K,K,…")]
    dead: Vec<u32>,
    /// Servers, counted from 0, that do not answer ARP or ND (group; plain with fib_multipath_use_neigh=1).
    #[arg(long, value_delimiter = ',', value_name = "K,K,…")]
    failed: Vec<u32>,
    /// Ask this machine's kernel too, in a network namespace made for it.
    #[arg(long)]
    verify: bool,
    /// Print one JSON object: hash31, member (from 0), bucket.
    #[arg(long)]
    json: bool,
}

/// What was found out.
struct Answer {
    packet: Packet,
    hash: u32,
    member: u32,
    bucket: Option<usize>,
}

pub(super) fn main(arguments: &Predict) -> Result<(), Error> {
    let flow = flow(arguments)?;
    let packet = if arguments.fragment { Packet::Fragment(flow) } else { Packet::Whole(flow) };
    let answer = predict(arguments, packet)?;
    let kernel = if arguments.verify { Some(verify(arguments, &flow)?) } else { None };
    if arguments.json {
        say_json(&as_json(arguments, &answer, kernel));
    } else {
        print(arguments, &flow, &answer, kernel);
    }
    match kernel {
        Some((asked, expected)) if asked != expected => Err(Error::Failed(format!(
            "the kernel says member {asked}, the twin {expected}: this kernel ({}) does not compute as Linux 6.11 to 6.18 do",
            super::kernel::release()
        ))),
        _ => Ok(()),
    }
}

fn flow(arguments: &Predict) -> Result<Flow, Error> {
    let Some(mut addresses) = Addresses::new(arguments.src, arguments.dst) else {
        return Err(Error::Usage(format!(
            "--src {} and --dst {} are of different families; give two of one",
            arguments.src, arguments.dst
        )));
    };
    match (&mut addresses, arguments.flow_label) {
        (Addresses::V6 { flow_label, .. }, Some(label)) => *flow_label = label,
        (Addresses::V4 { .. }, Some(_)) => {
            return Err(Error::Usage("--flow-label: IPv4 has none; leave it out".to_owned()));
        }
        (_, None) => {}
    }
    Ok(Flow {
        addresses,
        protocol: arguments.proto.number(arguments.src.is_ipv4()),
        source_port: arguments.sport,
        destination_port: arguments.dport,
    })
}

fn predict(arguments: &Predict, packet: Packet) -> Result<Answer, Error> {
    let members = arguments.router.members();
    let hash = arguments.router.hasher()?.forwarded(&packet);
    let unwell = !arguments.dead.is_empty() || !arguments.failed.is_empty();
    if let Some(unknown) =
        arguments.dead.iter().chain(&arguments.failed).find(|id| **id as usize >= members.len())
    {
        return Err(Error::Usage(format!(
            "there is no server {unknown}: with {} they are 0 to {}",
            members.len(),
            members.len() - 1
        )));
    }
    let (member, bucket) = match arguments.install {
        Install::Plain | Install::Group => {
            let table = threshold(&members, &arguments.dead, &arguments.failed)?;
            (u32::try_from(table.pick(hash)).unwrap_or(u32::MAX), None)
        }
        install if unwell => {
            return Err(Error::Usage(format!(
                "--dead and --failed are for plain and group; under `{install}` leave the dead one out of the members"
            )));
        }
        Install::Resilient { buckets, busy } => {
            let group = Install::resilient(buckets, busy, &members)?;
            (group.peek(hash), Some(group.bucket_of(hash)))
        }
        Install::Spray => {
            return Err(Error::Usage(
                "`spray` sends each packet of a flow elsewhere: nothing to predict".to_owned(),
            ));
        }
        install => {
            let picked = install.design(&members)?.pick(anyvip_machine::Time::ZERO, hash);
            (picked.ok_or_else(|| Error::Usage("there is no member".to_owned()))?, None)
        }
    };
    Ok(Answer { packet, hash, member, bucket })
}

/// The kernel's answer, and what the twin expects of it: of a lookup, which for IPv6 under policy 3 is not a packet.
fn verify(arguments: &Predict, flow: &Flow) -> Result<(u32, u32), Error> {
    askable(&arguments.install, flow)?;
    if arguments.fragment
        || arguments.flow_label.is_some_and(|label| label != 0)
        || !arguments.dead.is_empty()
        || !arguments.failed.is_empty()
    {
        return Err(Error::Usage(
            "--verify: the kernel can be asked about whole packets without a flow label, all servers well; leave out \
             --fragment, --flow-label, --dead and --failed"
                .to_owned(),
        ));
    }
    let members = arguments.router.members();
    let hash = arguments.router.hasher()?.lookup(flow);
    let expected =
        arguments.install.design(&members)?.pick(anyvip_machine::Time::ZERO, hash).unwrap_or(u32::MAX);
    let kernel = Kernel::open(&arguments.router)?;
    kernel.begin(arguments.install, flow.addresses.destination(), &members)?;
    let asked = kernel.ask(vec![*flow])?;
    Ok((asked.first().copied().unwrap_or(u32::MAX), expected))
}

fn as_json(arguments: &Predict, answer: &Answer, kernel: Option<(u32, u32)>) -> Value {
    let mut value = json!({
        "hash31": answer.hash,
        "member": answer.member,
        "bucket": answer.bucket,
        "install": arguments.install.to_string(),
        "policy": arguments.router.policy,
        "fields": (arguments.router.policy == 3).then(|| arguments.router.fields.to_string()),
        "seed": arguments.router.seed,
    });
    if let (Some((asked, expected)), Value::Object(map)) = (kernel, &mut value) {
        map.insert(
            "kernel".to_owned(),
            json!({ "member": asked, "expected": expected, "agrees": asked == expected }),
        );
    }
    value
}

fn print(arguments: &Predict, flow: &Flow, answer: &Answer, kernel: Option<(u32, u32)>) {
    let port = |address: IpAddr, port: u16| match (flow.protocol, address) {
        (1 | 58, address) => address.to_string(),
        (_, IpAddr::V4(address)) => format!("{address}:{port}"),
        (_, IpAddr::V6(address)) => format!("[{address}]:{port}"),
    };
    let what = if matches!(answer.packet, Packet::Fragment(_)) { ", a fragment" } else { "" };
    say(&format!(
        "{} → {}  {}{what}",
        port(flow.addresses.source(), flow.source_port),
        port(flow.addresses.destination(), flow.destination_port),
        protocol_text(flow.protocol)
    ));
    let count = arguments.router.members().len();
    say(&format!("hash     {:#010x}   {}", answer.hash, arguments.router.text()));
    if let Some(bucket) = answer.bucket {
        say(&format!("bucket   {bucket:<12} of a new table; a table with a history may differ"));
    }
    say(&format!(
        "member   {:<12} counted from 0, of {count}, installed as {}",
        answer.member, arguments.install
    ));
    if let Some((asked, expected)) = kernel {
        let verdict = if asked == expected { "agrees" } else { "DIFFERS" };
        let note = match (flow.addresses, arguments.router.policy) {
            (Addresses::V6 { .. }, 3) => {
                format!(
                    "; asked by lookup, which IPv6 hashes otherwise than packets under policy 3: member {expected}"
                )
            }
            _ => String::new(),
        };
        say(&format!("kernel   {verdict:<12} {}{note}", super::kernel::release()));
    }
}

fn label(text: &str) -> Result<u32, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    match number {
        Ok(label) if label < 1 << 20 => Ok(label),
        _ => Err(format!("`{text}`: a flow label has 20 bits, 0 to 0xfffff")),
    }
}
