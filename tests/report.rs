//! The page of `--report` in a real browser: it says what the JSON says, nothing lies over anything else, nothing runs.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyvip_tests::{Browser, Light, Need, Scratch, met};
use serde_json::Value;

/// A run and what it wrote.
struct Run {
    scratch: Scratch,
    json: Value,
}

impl Run {
    fn page(&self) -> PathBuf {
        self.scratch.path().join("out.html")
    }
}

fn topology(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("topology").join(name)
}

/// Runs a lab; whether its expectations are met does not matter here.
fn run(scratch: Scratch, lab: &Path, more: &[&str]) -> Run {
    let (json, page) = (scratch.path().join("out.json"), scratch.path().join("out.html"));
    let output = Command::new(env!("CARGO_BIN_EXE_anyvip-sim-under-test"))
        .arg("run")
        .arg(lab)
        .args(more)
        .arg("--json")
        .arg(&json)
        .arg("--report")
        .arg(&page)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let text = std::fs::read(&json).unwrap_or_else(|error| panic!("no JSON ({error}):\n{said}"));
    Run { scratch, json: serde_json::from_slice(&text).unwrap() }
}

/// So many servers behind one router; one dies while a measurement of this name runs.
fn many(servers: usize, name: &str, title: &str) -> Run {
    let scratch = Scratch::new();
    let mut lab = "name: many\ntopology:\n  defaults: { kind: linux }\n  nodes:\n    router:\n      labels:\n        anyvip.role: router\n        \
                   anyvip.asn: 65001\n        anyvip.hash-seed: 4242\n"
        .to_owned();
    let mut links = String::new();
    for number in 1..=servers + 1 {
        let _ = writeln!(lab, "        anyvip.address.eth{number}: 10.0.{number}.1/24");
        let other = if number > servers { "client".to_owned() } else { format!("h{number}") };
        let _ = writeln!(links, "    - endpoints: [\"router:eth{number}\", \"{other}:eth1\"]");
    }
    lab.push_str("      exec: [anyvip-sim node --lab x --name router]\n");
    for number in 1..=servers {
        let _ = write!(
            lab,
            "    h{number}:\n      binds: [h{number}.toml:/etc/anyvip/config.toml]\n      exec: [anyvip-sim node --lab x --name h{number}]\n      \
             labels: {{ anyvip.role: agent, anyvip.asn: {}, anyvip.service.http: 8080, anyvip.service.udp: 5300, \
             anyvip.address.eth1: 10.0.{number}.11/24, anyvip.gateway: 10.0.{number}.1 }}\n",
            65100 + number
        );
        let config = std::fs::read_to_string(topology("quickstart/h1.toml")).unwrap();
        let config = config
            .replace("10.0.1.", &format!("10.0.{number}."))
            .replace("65011", &(65100 + number).to_string());
        scratch.write(&format!("h{number}.toml"), &config);
    }
    let client = servers + 1;
    let _ = write!(
        lab,
        "    client:\n      exec: [anyvip-sim node --lab x --name client]\n      labels: {{ anyvip.role: client, \
         anyvip.address.eth1: 10.0.{client}.2/24, anyvip.gateway: 10.0.{client}.1 }}\n  links:\n{links}"
    );
    let lab = scratch.write("many.clab.yml", &lab);
    let (name, title) = (serde_json::to_string(name).unwrap(), serde_json::to_string(title).unwrap());
    scratch.write(
        "many.scenario.yml",
        &format!(
            "title: {title}\ntraffic:\n  udp: {{ from: client, to: 192.0.2.53, port: 5300, protocol: udp, flows: 20000 }}\n  \
             steady: {{ from: client, to: 192.0.2.53, port: 5300, protocol: udp, flows: 2000, rate: 4000, timeout: 500ms }}\nsteps:\n  \
             - wait-for: {{ router: router, prefix: 192.0.2.53/32, next-hops: {servers}, within: 30s }}\n  \
             - flows: {{ traffic: udp, as: before }}\n  - start: {{ traffic: steady, as: {name} }}\n  - sleep: 200ms\n  - kill: h2\n  \
             - wait-for: {{ router: router, prefix: 192.0.2.53/32, next-hops: {} }}\n  - sleep: 200ms\n  - stop: {name}\n  \
             - flows: {{ traffic: udp, as: after }}\n  - expect: {{ of: after, moved-since: before, at-most: 1, lost: 0 }}\n",
            servers - 1
        ),
    );
    run(scratch, &lab, &["--backend", "virtual"])
}

/// Marks of one kind, by these two attributes of theirs.
fn marks(found: &Value, tag: &str, has: &str) -> Vec<BTreeMap<String, Value>> {
    let all = found["marks"].as_array().unwrap();
    let mine = all.iter().filter(|mark| mark["tag"] == tag && mark.get(has).is_some());
    mine.map(|mark| serde_json::from_value(mark.clone()).unwrap()).collect()
}

fn number(mark: &BTreeMap<String, Value>, name: &str) -> u64 {
    let text = mark.get(name).and_then(Value::as_str).unwrap_or_else(|| panic!("no {name}: {mark:?}"));
    text.parse().unwrap_or_else(|error| panic!("{name} {text}: {error}"))
}

/// Every figure that the page shows is that of the JSON.
fn says_what_the_json_says(run: &Run, found: &Value) {
    let json = &run.json;
    // Scripts do not tell 10 from 10.0, so it is read here.
    let data: Value = serde_json::from_str(found["data"].as_str().unwrap()).unwrap();
    assert!(data == *json, "the page carries other data than the JSON");
    let verdicts = json["verdicts"].as_array().unwrap();
    let header = &marks(found, "header", "passed")[0];
    assert_eq!(header["passed"], json["passed"].to_string());
    assert_eq!(number(header, "expectations") as usize, verdicts.len());
    let shown: Vec<String> =
        marks(found, "tr", "met").iter().map(|mark| mark["met"].as_str().unwrap().to_owned()).collect();
    assert_eq!(shown, verdicts.iter().map(|verdict| verdict["met"].to_string()).collect::<Vec<_>>());

    let measurements = json["measurements"].as_object().unwrap();
    let heads = marks(found, "th", "measurement");
    assert_eq!(heads.len(), measurements.len());
    for head in &heads {
        let one = &measurements[head["measurement"].as_str().unwrap()];
        assert_eq!(
            (number(head, "asked"), number(head, "lost")),
            (one["asked"].as_u64().unwrap(), one["lost"].as_u64().unwrap())
        );
    }
    let mut cells = 0;
    for cell in marks(found, "td", "flows") {
        let one = &measurements[cell["measurement"].as_str().unwrap()]["per_server"];
        let flows = one.get(cell["server"].as_str().unwrap()).and_then(Value::as_u64).unwrap_or(0);
        assert_eq!(number(&cell, "flows"), flows, "{cell:?}");
        // And so it reads, with the spaces between thousands.
        let digits: String = cell["text"]
            .as_str()
            .unwrap()
            .split(' ')
            .next()
            .unwrap()
            .chars()
            .filter(char::is_ascii_digit)
            .collect();
        assert_eq!(digits, flows.to_string(), "{cell:?}");
        cells += usize::from(flows > 0);
    }
    assert_eq!(
        cells,
        measurements.values().map(|one| one["per_server"].as_object().unwrap().len()).sum::<usize>()
    );
    for bar in found["bars"].as_array().unwrap() {
        let per_server =
            measurements[bar["measurement"].as_str().unwrap()]["per_server"].as_object().unwrap();
        let most = per_server.values().filter_map(Value::as_u64).max().unwrap() as f64;
        let drawn = bar["share"].as_f64().unwrap();
        assert!(
            (drawn - bar["flows"].as_f64().unwrap() / most).abs() < 0.02,
            "a bar as long as its number: {bar}"
        );
    }

    let moves = json["moves"].as_array().unwrap();
    let figures = marks(found, "figure", "before");
    assert_eq!(figures.len(), moves.len());
    for (figure, one) in figures.iter().zip(moves) {
        assert_eq!(figure["before"], one["before"]);
        assert_eq!(number(figure, "moved"), one["moved"].as_u64().unwrap());
        assert_eq!(number(figure, "movedOfSurvivors"), one["moved_of_survivors"].as_u64().unwrap());
        let all = found["marks"].as_array().unwrap().iter();
        let drawn = all.filter(|mark| {
            mark["figure"]["before"] == figure["before"] && mark["figure"]["after"] == figure["after"]
        });
        let drawn: BTreeMap<(String, String), u64> = drawn
            .filter(|mark| mark.get("from").is_some())
            .map(|mark| {
                let word = |name: &str| mark[name].as_str().unwrap().to_owned();
                ((word("from"), word("to")), word("flows").parse().unwrap())
            })
            .collect();
        let told = one["shares"].as_array().unwrap().iter().map(|share| {
            let to = share.get("to").and_then(Value::as_str).unwrap_or("no answer");
            ((share["from"].as_str().unwrap().to_owned(), to.to_owned()), share["flows"].as_u64().unwrap())
        });
        if one["moved"] != 0 || one["unanswered"] != 0 {
            assert_eq!(drawn, told.collect(), "{} to {}", one["before"], one["after"]);
        }
    }
    for row in marks(found, "tr", "connections") {
        let one = &json["connections"][row["connections"].as_str().unwrap()][row["server"].as_str().unwrap()];
        assert_eq!(number(&row, "kept"), one["kept"].as_u64().unwrap());
        let cut: u64 = ["closed", "reset", "stalled"].iter().map(|end| one[end].as_u64().unwrap()).sum();
        assert_eq!(number(&row, "cut"), cut);
    }
    for figure in marks(found, "figure", "latency") {
        let one = &measurements[figure["latency"].as_str().unwrap()]["latency_us"];
        assert_eq!(
            (number(&figure, "p50"), number(&figure, "p99")),
            (one["p50"].as_u64().unwrap(), one["p99"].as_u64().unwrap())
        );
        let all = found["marks"].as_array().unwrap().iter();
        let mine =
            all.filter(|mark| mark["figure"]["latency"] == figure["latency"] && mark.get("count").is_some());
        let sum: u64 = mine.map(|mark| mark["count"].as_str().unwrap().parse::<u64>().unwrap()).sum();
        assert_eq!(sum, one["count"].as_u64().unwrap());
    }
    for figure in marks(found, "figure", "closeUp") {
        let one = &measurements[figure["closeUp"].as_str().unwrap()];
        assert_eq!(number(&figure, "lost"), one["lost"].as_u64().unwrap());
    }
    let nodes = json["topology"]["nodes"].as_object().unwrap();
    assert_eq!(marks(found, "g", "node").len(), nodes.len());
    let picture = &marks(found, "svg", "links")[0];
    assert_eq!(number(picture, "links") as usize, json["topology"]["links"].as_array().unwrap().len());
    assert_eq!(
        number(&marks(found, "section", "events")[0], "events") as usize,
        json["timeline"].as_array().unwrap().len()
    );
}

/// Good to read: no text over another or cut off, nothing fetched, nothing that runs.
fn reads_well(found: &Value) {
    assert_eq!(found["overlaps"], serde_json::json!([]), "texts over each other");
    assert_eq!(found["outside"], serde_json::json!([]), "texts that are cut off");
    assert_eq!(found["swollen"], serde_json::json!([]), "pictures larger than they were drawn");
    assert_eq!(found["fetched"], serde_json::json!([]));
    assert_eq!(found["images"], 0);
    assert_eq!(found["scripts"], 2, "the data, and the inspection itself");
    assert_eq!(found["wide"], false, "the page is not wider than its window");
}

fn is_picture(png: &[u8], (width, height): (u32, u32)) {
    assert_eq!(png[..8], *b"\x89PNG\r\n\x1a\n");
    assert_eq!(
        (png[16..20].to_vec(), png[20..24].to_vec()),
        (width.to_be_bytes().to_vec(), height.to_be_bytes().to_vec())
    );
    assert!(png.len() > 20_000, "an empty picture: {} bytes", png.len());
}

#[test]
fn a_report_of_real_kernels_says_in_a_browser_what_the_json_says() {
    if !met(&[Need::Root, Need::Program("chromium")]) {
        return;
    }
    let agent = env!("CARGO_BIN_EXE_anyvip-under-test");
    let run = run(Scratch::new(), &topology("quickstart.clab.yml"), &["--agent", agent]);
    let browser = Browser::default();
    assert_eq!(browser.console(&run.page()), Vec::<String>::new());
    let found = browser.inspect(&run.page(), Light::Light);
    says_what_the_json_says(&run, &found);
    reads_well(&found);
    assert_eq!(marks(&found, "figure", "latency").len(), run.json["measurements"].as_object().unwrap().len());
    assert!(!marks(&found, "figure", "closeUp").is_empty());
    assert!(!marks(&found, "tr", "connections").is_empty());
    assert!(run.json["run"]["versions"]["kernel"].as_str().unwrap().starts_with("Linux "));
    assert_eq!(run.json["run"]["hash_seeds"]["router"], 4242);
    assert_eq!(run.json["run"]["command"][1], "run");
}

#[test]
fn a_report_is_readable_in_light_and_dark_and_on_paper() {
    if !met(&[Need::Program("chromium")]) {
        return;
    }
    let run = run(Scratch::new(), &topology("quickstart.clab.yml"), &["--backend", "virtual"]);
    let browser = Browser::default();
    let (light, dark) =
        (browser.inspect(&run.page(), Light::Light), browser.inspect(&run.page(), Light::Dark));
    says_what_the_json_says(&run, &light);
    reads_well(&light);
    reads_well(&dark);
    let grey = |colour: &Value| -> u32 {
        let text = colour.as_str().unwrap();
        let numbers = text.trim_start_matches("rgb(").trim_end_matches(')').split(", ");
        numbers.map(|number| number.parse::<u32>().unwrap()).sum()
    };
    assert!(grey(&light["background"]) > 700 && grey(&light["ink"]) < 150, "{light:.100}");
    assert!(grey(&dark["background"]) < 150 && grey(&dark["ink"]) > 600, "{dark:.100}");
    let size = (1200, 2000);
    let pictures = [Light::Light, Light::Dark].map(|light| browser.screenshot(&run.page(), light, size));
    pictures.iter().for_each(|picture| is_picture(picture, size));
    assert_ne!(pictures[0], pictures[1]);
    let on_paper = browser.inspect(&run.page(), Light::Paper);
    says_what_the_json_says(&run, &on_paper);
    reads_well(&on_paper);
    let paper = browser.print(&run.page());
    assert!(paper.starts_with(b"%PDF") && paper.len() > 20_000, "{} bytes", paper.len());
}

#[test]
fn a_report_is_readable_with_eight_servers_and_with_sixty_four() {
    if !met(&[Need::Program("chromium")]) {
        return;
    }
    let browser = Browser::default();
    for servers in [8, 64] {
        let run = many(servers, "dying", "one of many dies");
        assert_eq!(run.json["passed"], false, "more moves than the 1 % that this scenario allows");
        let found = browser.inspect(&run.page(), Light::Light);
        says_what_the_json_says(&run, &found);
        reads_well(&found);
        reads_well(&browser.inspect(&run.page(), Light::Paper));
        assert!(run.json["measurements"]["dying"]["lost"].as_u64().unwrap() > 0, "{servers}");
        is_picture(&browser.screenshot(&run.page(), Light::Light, (1200, 1800)), (1200, 1800));
    }
}

#[test]
fn text_of_a_scenario_stays_text() {
    if !met(&[Need::Program("chromium")]) {
        return;
    }
    let name = "</script><img src=x onerror=\"document.title='broken'\"> & 'so' on";
    let title = "<script>document.title='broken'</script><b>\u{202e}right to left";
    let run = many(3, name, title);
    let browser = Browser::default();
    assert_eq!(browser.console(&run.page()), Vec::<String>::new());
    let found = browser.inspect(&run.page(), Light::Light);
    says_what_the_json_says(&run, &found);
    reads_well(&found);
    assert_eq!(found["title"], format!("many: {title}"));
    assert!(marks(&found, "th", "measurement").iter().any(|head| head["measurement"] == name));
}

#[test]
fn a_comparison_of_designs_says_on_its_page_what_its_json_says() {
    if !met(&[Need::Program("chromium")]) {
        return;
    }
    let scratch = Scratch::new();
    let (json, page) = (scratch.path().join("out.json"), scratch.path().join("out.html"));
    let plan = std::fs::read_to_string(topology("designs.compare.yml")).unwrap();
    // A tenth of the requests: the page is the same.
    let plan = scratch.write("designs.compare.yml", &plan.replace("rate: 1000", "rate: 100"));
    let output = Command::new(env!("CARGO_BIN_EXE_anyvip-sim-under-test"))
        .arg("compare")
        .arg(&plan)
        .arg("--json")
        .arg(&json)
        .arg("--report")
        .arg(&page)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let browser = Browser::default();
    assert_eq!(browser.console(&page), Vec::<String>::new());
    let found = browser.inspect(&page, Light::Light);
    reads_well(&found);
    // Many columns, and words about each design: all of it must be on the paper.
    reads_well(&browser.inspect(&page, Light::Paper));
    let data: Value = serde_json::from_str(found["data"].as_str().unwrap()).unwrap();
    assert!(data == json, "the page carries other data than the JSON");
    let results = json["results"].as_array().unwrap();
    let rows = marks(&found, "tr", "design");
    assert_eq!((rows.len(), results.len()), (14, 14));
    for (row, result) in rows.iter().zip(results) {
        assert_eq!(row["design"], result["design"]);
        for (mark, field) in [
            ("lost", "lost"),
            ("late", "late"),
            ("needless", "cut_needlessly"),
            ("withServer", "cut_with_server"),
            ("packets", "balancer_packets"),
        ] {
            assert_eq!(number(row, mark), result[field].as_u64().unwrap(), "{} {field}", result["design"]);
        }
        assert_eq!((&result["by"], &row["by"]), (&Value::from("model"), &Value::from("model")));
        // The table in the terminal says the same, and of every cell that it is a model's.
        let line = said
            .lines()
            .find(|line| line.starts_with(&format!("| {} ", result["design"].as_str().unwrap())))
            .unwrap();
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        assert_eq!(cells[2], format!("{} m", result["lost"]), "{line}");
        assert!(cells[2..9].iter().all(|cell| cell.ends_with(" m")), "{line}");
        let drawn = found["marks"].as_array().unwrap().iter();
        let drawn =
            drawn.filter(|mark| mark["figure"]["hurt"] == result["design"] && mark.get("second").is_some());
        let drawn: u64 = drawn.map(|mark| mark["count"].as_str().unwrap().parse::<u64>().unwrap()).sum();
        assert_eq!(drawn, result["lost"].as_u64().unwrap() + result["late"].as_u64().unwrap());
    }
    for words in [
        "TTL 30s",
        "timeout 1s, 2 tries",
        "fall 3, rise 2",
        "a table of flows that the standby does not know",
        "Through balancer: packets of requests and answers",
    ] {
        assert!(said.contains(words), "the output states what it assumed, {words}: {said}");
    }
}

#[test]
fn the_inspection_finds_what_it_looks_for() {
    if !met(&[Need::Program("chromium")]) {
        return;
    }
    let run = many(3, "dying", "t");
    let text = std::fs::read_to_string(run.page()).unwrap();
    let worse = text
        .replacen("<svg viewBox", "<svg><text x=\"5\" y=\"5\">one</text><text x=\"6\" y=\"6\">two</text></svg><svg viewBox", 1)
        .replace("default-src 'none'; style-src 'unsafe-inline'", "default-src 'none'; style-src 'unsafe-inline'\"><!-- default-src 'none'; style-src 'unsafe-inline' --><script>console.error('loud')</script><meta name=\"x");
    let page = run.scratch.write("worse.html", &worse);
    let browser = Browser::default();
    assert_eq!(browser.inspect(&page, Light::Light)["overlaps"], serde_json::json!(["one | two"]));
    let console = browser.console(&page);
    assert!(!console.is_empty(), "a script that is refused is said on the console");
}
