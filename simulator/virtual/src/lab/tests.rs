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
            "- endpoints: [\"tor:eth2\", \"h9:eth1\"]\n      vars: {}",
        );
    let list = errors(&text);
    for (place, part) in [
        ("t.yml:6:5", "startup-config"),
        ("t.yml:12:27", "seed must not be 0"),
        ("t.yml:22:9", "anyvip.service.quic"),
        ("t.yml:37:7", "vars"),
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
        (
            "10.0.2.11/24",
            "10.0.1.1/24",
            "t.yml:13:30: error: node tor: 10.0.1.1 is already the address of h2:eth1",
        ),
        ("anyvip.hash-seed: 7", "anyvip.install: ecmp", "there are plain, group"),
        ("anyvip.hash-seed: 7", "anyvip.daemon: gobgp", "expected frr or bird"),
        (
            "anyvip.hash-seed: 7",
            "anyvip.daemon: bird",
            "no bind provides the daemon's configuration /etc/bird",
        ),
        ("\"tor:eth2\", \"h2:eth1\"]", "\"tor:eth2\", \"h2:eth1\"]\n      mtu: 20", "68 to 65535"),
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

/// Of the second host, after this change.
fn h2(changes: &[(&str, &str)]) -> Node {
    let mut text = SMALL.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    let (lab, list) = Lab::read("t.yml", &text);
    assert_eq!(list, []);
    lab.unwrap().nodes["h2"].clone()
}

#[test]
fn a_node_inherits_from_defaults_kind_and_group_and_the_nearest_word_wins() {
    let levels = "  kinds:
    linux:
      env: { A: kind, B: kind, C: kind }
      sysctls: { net.ipv4.tcp_ecn: 1 }
      exec: [ip rule]
      binds: [kind/x:/x, kind/y:/y]
  groups:
    rack:
      env: { B: group, C: group }
      exec: [ip neigh, ip rule]
      binds: [group/y:/y]
  nodes:";
    let node = h2(&[
        (
            "    image: debian:12\n",
            "    image: debian:12\n    env: { A: defaults, D: defaults }\n    exec: [ip addr]\n",
        ),
        ("  nodes:", levels),
        ("    h2:\n", "    h2:\n      group: rack\n      env: { C: node }\n"),
    ]);
    let env: Vec<(&str, &str)> =
        node.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(env, [("A", "kind"), ("B", "group"), ("C", "node"), ("D", "defaults")]);
    assert_eq!(node.sysctls["net.ipv4.tcp_ecn"], "1");
    assert_eq!(node.outside("/x").unwrap(), "kind/x");
    assert_eq!(node.outside("/y").unwrap(), "group/y");
    let commands: Vec<String> = node
        .exec
        .iter()
        .map(|exec| match exec {
            Exec::Command(words) => words.join(" "),
            Exec::Role => "role".to_owned(),
        })
        .collect();
    assert_eq!(
        commands,
        ["ip addr", "ip rule", "ip neigh", "ip link show", "role"],
        "each once, outermost first"
    );
}

#[test]
fn a_kind_can_come_from_a_group_and_a_group_from_a_kind() {
    let bridge = SMALL
        .replace("    kind: linux\n", "")
        .replace("  nodes:", "  groups:\n    lan: { kind: bridge }\n    machines: { kind: linux }\n  nodes:\n    lan: { group: lan }")
        .replace("    tor:\n", "    tor:\n      group: machines\n")
        .replace("    h1: &host\n", "    h1: &host\n      kind: linux\n");
    let (lab, list) = Lab::read("t.yml", &bridge);
    assert_eq!(list, []);
    assert_eq!(lab.unwrap().nodes["lan"].role, Role::Bridge);
    let node = h2(&[(
        "  nodes:",
        "  kinds: { linux: { group: all } }\n  groups: { all: { env: { A: b } } }\n  nodes:",
    )]);
    assert_eq!(node.env["A"], "b");
    // A group that is written nowhere is a word for drawings.
    assert!(h2(&[("    h2:\n", "    h2:\n      group: left\n")]).env.is_empty());
}

#[test]
fn links_have_a_short_and_a_long_form() {
    let text = SMALL.replace(
        "- endpoints: [\"tor:eth2\", \"h2:eth1\"]",
        "- type: veth\n      endpoints:\n        - node: tor\n          interface: eth2\n        - { node: h2, interface: eth1 }",
    );
    let (lab, list) = Lab::read("t.yml", &text);
    assert_eq!(list, []);
    assert_eq!(lab.unwrap(), {
        let mut short = Lab::read("t.yml", SMALL).0.unwrap();
        short.links[1].place = Place { line: 36, column: 7 };
        short
    });
}

#[test]
fn what_containerlab_reads_and_this_does_not_is_named_with_its_place_by_what_it_would_change() {
    let link = "- endpoints: [\"tor:eth2\", \"h2:eth1\"]";
    for (from, to, words) in [
        (
            "image: debian:12",
            "startup-config: x",
            "t.yml:6:5: error: defaults: containerlab's `startup-config`",
        ),
        ("image: debian:12", "env-files: [x]", "containerlab's `env-files` is not supported"),
        ("image: debian:12", "imag: x", "containerlab has no key `imag`"),
        (link, "- type: host\n      endpoint: { node: h2, interface: eth1 }", "type `host` is not supported"),
        (
            link,
            "- endpoints: [\"host:veth1\", \"h2:eth1\"]",
            "t.yml:36:19: error: endpoint `host:veth1`: a link to `host`",
        ),
        (link, "- endpoints: [\"macvlan:ens3\", \"h2:eth1\"]", "a link to `macvlan`"),
        (
            link,
            "- endpoints: [{ node: tor, interface: eth2, ipv4: 10.0.2.1/24 }, \"h2:eth1\"]",
            "label `anyvip.address",
        ),
        (link, "- endpoints: [{ node: tor }, \"h2:eth1\"]", "`node` and `interface` are needed"),
        ("ip link show", "touch __clabNodeDir__/x", "no folder of containerlab's"),
        (
            "image: debian:12",
            "env: { A: \"${HOME}\" }",
            "t.yml:6:15: error: `${HOME}`: containerlab would put a variable",
        ),
        ("image: debian:12", "binds: [\"$HOME/x:/x\"]", "write the value"),
    ] {
        assert!(SMALL.contains(from), "{from}");
        let list = errors(&SMALL.replace(from, to));
        assert!(list.iter().any(|line| line.contains(words)), "{words}: {list:#?}");
    }
}

#[test]
fn what_only_containers_have_is_a_warning_and_the_lab_runs() {
    let text = SMALL
        .replace("image: debian:12", "image: debian:12\n    memory: 1GB\n    ports: [\"80:80\"]")
        .replace("name: small\n", "name: small\nprefix: x\n");
    let (lab, list) = Lab::read("t.yml", &text);
    assert!(lab.is_some(), "{list:?}");
    let list: Vec<String> = list.iter().map(ToString::to_string).collect();
    assert_eq!(
        list,
        [
            "t.yml:3:1: warning: `prefix` has no effect without containers",
            "t.yml:8:5: warning: defaults: `memory` has no effect without containers",
            "t.yml:9:5: warning: defaults: `ports` has no effect without containers",
        ]
    );
}

#[test]
fn magic_words_of_containerlab_stand_for_the_lab_and_the_node() {
    let node = h2(&[("ip link show", "echo __clabLabName__ __clabNodeName__")]);
    assert_eq!(node.exec[0], Exec::Command(vec!["echo".into(), "small".into(), "h2".into()]));
}

#[test]
fn words_are_taken_as_they_are_written_as_containerlab_does() {
    let node = h2(&[(
        "image: debian:12",
        "env: { A: yes, B: 010, C: 1.50, D: on }\n    sysctls: { net.ipv4.fib_multipath_hash_fields: 0x37 }",
    )]);
    let env: Vec<(&str, &str)> = node.env.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(env, [("A", "yes"), ("B", "010"), ("C", "1.50"), ("D", "on")]);
    assert_eq!(node.sysctls["net.ipv4.fib_multipath_hash_fields"], "55");
    let lab =
        Lab::read("t.yml", &SMALL.replace("anyvip.hash-seed: 7", "anyvip.hash-seed: 0x1092")).0.unwrap();
    let Role::Router(tor) = &lab.nodes["tor"].role else { panic!() };
    assert_eq!(tor.hash_seed, 4242);
}

/// Each key that containerlab has for nodes, kinds, groups and defaults: taken, or named with its place. None is ignored silently.
#[test]
fn every_key_of_containerlab_is_taken_or_named() {
    let taken = [
        "kind",
        "group",
        "image",
        "image-pull-policy",
        "cap-add",
        "binds",
        "exec",
        "env",
        "labels",
        "sysctls",
    ];
    for level in ["defaults", "kinds", "groups", "nodes"] {
        for key in CONTAINERLAB {
            let entry = match key {
                "kind" => "kind: linux".to_owned(),
                "group" | "image" | "image-pull-policy" => format!("{key}: x"),
                "cap-add" | "binds" => format!("{key}: [\"x:/x\"]"),
                "exec" => "exec: [ip rule]".to_owned(),
                "env" | "labels" => format!("{key}: {{ x: y }}"),
                "sysctls" => "sysctls: { net.ipv4.ip_forward: 1 }".to_owned(),
                other => format!("{other}: x"),
            };
            let text = match level {
                "defaults" if key == "kind" || key == "image" => continue,
                "defaults" => SMALL.replace("    image: debian:12", &format!("    {entry}")),
                "nodes" if key == "exec" || key == "labels" => continue,
                "nodes" => SMALL.replace("    tor:\n", &format!("    tor:\n      {entry}\n")),
                level => {
                    SMALL.replace("  nodes:", &format!("  {level}:\n    linux:\n      {entry}\n  nodes:"))
                }
            };
            let (lab, list) = Lab::read("t.yml", &text);
            let named = list.iter().filter(|one| one.text.contains(&format!("`{key}`"))).count();
            if taken.contains(&key) {
                assert!(lab.is_some() && list.is_empty(), "{level}.{key}: {list:?}");
            } else {
                assert_eq!((named, list.len()), (1, 1), "{level}.{key}: {list:?}");
                assert!(list[0].place.line > 0 && list[0].place.column > 0, "{:?}", list[0]);
            }
        }
    }
}

/// Keys of a node in the schema of containerlab 0.79, and one that stands below `stages` there.
const CONTAINERLAB: [&str; 51] = [
    "aliases",
    "auto-remove",
    "binds",
    "cap-add",
    "certificate",
    "cgroup-parent",
    "cgroupns-mode",
    "cmd",
    "components",
    "config",
    "cpu",
    "cpu-set",
    "credentials",
    "devices",
    "dns",
    "enforce-startup-config",
    "entrypoint",
    "env",
    "env-files",
    "exec",
    "extras",
    "group",
    "healthcheck",
    "hostname",
    "image",
    "image-pull-policy",
    "kind",
    "labels",
    "license",
    "link-apply-mode",
    "memory",
    "mgmt-ipv4",
    "mgmt-ipv6",
    "network-mode",
    "pid-mode",
    "ports",
    "privileged",
    "restart-policy",
    "runtime",
    "security-opts",
    "shm-size",
    "stages",
    "startup-config",
    "startup-delay",
    "suppress-startup-config",
    "sysctls",
    "tmpfs",
    "type",
    "user",
    "volumes",
    "wait-for",
];
