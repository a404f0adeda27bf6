use super::*;

const SMALL: &str = r#"
name: small
topology:
  defaults:
    kind: linux
    image: debian:12
  nodes:
    tor:
      labels:
        anyvip.role: router
        anyvip.asn: 65001
        anyvip.hash-seed: 7
        anyvip.address.eth1: 10.0.1.1/24, fd00:1::1/64
        anyvip.address.eth2: 10.0.2.1/24
      exec: [anyvip-sim node --lab /lab/small.clab.yml --name tor]
    h1: &host
      labels: &labels
        anyvip.role: agent
        anyvip.asn: 65011
        anyvip.address.eth1: 10.0.1.11/24, fd00:1::11/64
        anyvip.gateway: 10.0.1.1, fd00:1::1
        anyvip.service.http: 8080
      binds: [small/__clabNodeName__.toml:/etc/anyvip/config.toml:ro, .:/lab:ro]
      exec:
        - ip link show
        - anyvip-sim node --lab /lab/small.clab.yml --name __clabNodeName__
    h2:
      <<: *host
      labels:
        <<: *labels
        anyvip.asn: 65012
        anyvip.address.eth1: 10.0.2.11/24
        anyvip.gateway: 10.0.2.1
  links:
    - endpoints: ["tor:eth1", "h1:eth1"]
    - endpoints: ["tor:eth2", "h2:eth1"]
"#;

fn errors(text: &str) -> Vec<String> {
    let (lab, list) = Lab::read("t.yml", text);
    assert!(lab.is_none() && !list.is_empty(), "{list:?}");
    list.iter().map(ToString::to_string).collect()
}

#[test]
fn a_topology_file_becomes_a_lab_with_merge_keys_and_inheritance_applied() {
    let (lab, list) = Lab::read("t.yml", SMALL);
    assert_eq!(list, []);
    let lab = lab.unwrap();
    let Role::Agent(h2) = &lab.nodes["h2"].role else { panic!() };
    assert_eq!(h2.asn, 65012);
    assert_eq!(h2.service.http, Some(8080));
    assert_eq!(lab.nodes["h2"].outside(&h2.config).unwrap(), "small/h2.toml");
    assert_eq!(lab.nodes["h2"].outside("/lab/x/y").unwrap(), "./x/y");
    assert_eq!(lab.nodes["h2"].outside("/labyrinth"), None);
    assert_eq!(lab.nodes["h1"].exec[0], Exec::Command(vec!["ip".into(), "link".into(), "show".into()]));
    assert_eq!(lab.nodes["h1"].exec[1], Exec::Role);
    assert_eq!(lab.opposite("tor", "eth2").unwrap(), &Port { node: "h2".into(), interface: "eth1".into() });
    let Role::Router(tor) = &lab.nodes["tor"].role else { panic!() };
    assert_eq!(tor.router_id, Ipv4Addr::new(10, 0, 1, 1));
}

#[test]
fn the_neighbours_of_a_router_are_found_by_shared_subnet_once_each_and_over_ipv4() {
    let lab = Lab::read("t.yml", SMALL).0.unwrap();
    let neighbours = lab.neighbours("tor");
    assert_eq!(neighbours.len(), 2);
    assert_eq!(neighbours[0].name, "h1");
    assert_eq!(neighbours[0].address, "10.0.1.11".parse::<IpAddr>().unwrap());
    assert_eq!(neighbours[1].interface, "eth2");
    assert!(!neighbours[1].connect);
}

#[test]
fn what_is_not_supported_is_named_with_its_place_and_all_of_it_at_once() {
    let text = SMALL
        .replace("image: debian:12", "startup-config: x")
        .replace("anyvip.hash-seed: 7", "anyvip.hash-seed: 0")
        .replace("anyvip.service.http: 8080", "anyvip.service.quic: 8080")
        .replace(
            "- endpoints: [\"tor:eth2\", \"h2:eth1\"]",
            "- endpoints: [\"tor:eth2\", \"h9:eth1\"]\n      mtu: 9000",
        );
    let list = errors(&text);
    for (place, part) in [
        ("t.yml:6:5", "startup-config"),
        ("t.yml:12:27", "seed must not be 0"),
        ("t.yml:22:9", "anyvip.service.quic"),
        ("t.yml:37:7", "mtu"),
        ("t.yml:36:7", "no node `h9`"),
    ] {
        assert!(
            list.iter().any(|line| line.contains(place) && line.contains(part)),
            "{place} {part}: {list:#?}"
        );
    }
}

#[test]
fn a_lab_that_cannot_work_is_refused() {
    for (from, to, word) in [
        ("anyvip.gateway: 10.0.2.1", "anyvip.gateway: 10.9.2.1", "in no subnet"),
        ("10.0.2.11/24", "10.0.1.1/24", "already the address of"),
        ("anyvip.address.eth2", "anyvip.address.eth7", "no link ends at eth7"),
        ("tor:eth2\", \"h2:eth1", "tor:eth1\", \"h2:eth1", "end of another link"),
        ("tor:eth2\", \"h2:eth1", "tor:eth0\", \"h2:eth1", "management interface"),
        ("small/__clabNodeName__.toml:/etc/anyvip/config.toml:ro, ", "", "no bind provides"),
        ("--name __clabNodeName__", "--name other", "must start as `--name h1`"),
        ("exec: [anyvip-sim node --lab /lab/small.clab.yml --name tor]", "exec: []", "never starts its role"),
        ("ip link show", "sh -c 'ip link'", "shell characters"),
        ("kind: linux", "kind: ceos", "kind `ceos` is not supported"),
        ("anyvip.role: router", "anyvip.role: switch", "role `switch` is not known"),
        ("anyvip.asn: 65001", "anyvip.asn: 23456", "reserved"),
        ("anyvip.asn: 65001", "anyvip.asn: x", "invalid digit"),
        ("10.0.2.11/24", "10.0.2.11/33", "anyvip.address.eth1"),
        ("name: small", "name: a/b", "letters, digits"),
    ] {
        assert!(SMALL.contains(from), "{from}");
        let list = errors(&SMALL.replace(from, to));
        assert!(list.iter().any(|line| line.contains(word)), "{word}: {list:#?}");
    }
}
