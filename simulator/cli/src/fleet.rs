//! `anyvip-sim fleet`: what a whole fleet goes through when something dies, as a table and as curves.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyvip_virtual::study::{Event, Fleet, Measured};
use anyvip_virtual::world::Fabric;

use crate::cli;

/// Of a picture, in its own units.
const WIDTH: u32 = 640;
const HEIGHT: u32 = 280;
const MARGIN: u32 = 48;
/// One curve each.
const COLOURS: [&str; 8] =
    ["#1b6ca8", "#d1495b", "#2e8b57", "#edae49", "#6a4c93", "#00798c", "#8d6a3f", "#444444"];

/// 0: measured; 1: a fleet did not settle, or the picture could not be written.
pub(crate) fn main(arguments: &cli::Fleet) -> ExitCode {
    match study(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("anyvip-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn study(arguments: &cli::Fleet) -> Result<(), String> {
    let routers = arguments.routers.max(1);
    let fabric = Fabric {
        hosts: arguments.hosts,
        routers,
        uplinks: 2.min(routers),
        rack: arguments.rack,
        bfd: arguments.bfd,
        ..Fabric::default()
    };
    let begin = processor_time();
    let mut fleet =
        Fleet::settle(fabric, arguments.seed).ok_or("the fleet did not settle within five minutes")?;
    say(&format!(
        "{} hosts, {routers} routers, {} sessions each{}; all announced {:.1} s after they started ({:.1} s of processor here)\n",
        arguments.hosts,
        2.min(routers),
        arguments.bfd.map_or(String::new(), |each| format!(" with BFD each {} ms", each.as_millis())),
        fleet.settled.as_secs_f64(),
        (processor_time() - begin).as_secs_f64()
    ));
    say(
        "| event | routes | first gone | half | all | quiet | updates heard | most a second at one router | processor here |",
    );
    say("|---|---|---|---|---|---|---|---|---|");
    let mut all = Vec::new();
    for event in Event::ALL {
        let begin = processor_time();
        let measured = fleet.measure(event);
        say(&row(&measured, processor_time() - begin));
        all.push(measured);
    }
    if let Some(path) = &arguments.svg {
        let title = format!("{} hosts, {routers} routers", arguments.hosts);
        std::fs::write(path, picture(&title, &all))
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// What this process has used so far, whatever else the machine does; in ticks of 10 ms.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in parentheses may hold anything; user and system time are the 12th and 13th word after it.
    let words = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = words.skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// One line of the table.
fn row(measured: &Measured, took: Duration) -> String {
    let time = |time: Option<Duration>| match time {
        Some(time) => format!("{:.3} s", time.as_secs_f64()),
        None => "–".to_owned(),
    };
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {:.1} s |",
        measured.event.title(),
        measured.routes,
        time(measured.first),
        time(measured.half),
        time(measured.all),
        time(measured.quiet),
        measured.updates,
        measured.busiest,
        took.as_secs_f64()
    )
}

/// Share of the routes that have changed, over time.
fn picture(title: &str, all: &[Measured]) -> String {
    let ends = all.iter().filter_map(|measured| measured.curve.last()).map(|(at, _)| *at);
    let longest = ends.max().unwrap_or_default().max(Duration::from_secs(1)).as_secs_f64();
    let across =
        |at: Duration| f64::from(MARGIN) + at.as_secs_f64() / longest * f64::from(WIDTH - 2 * MARGIN);
    let up = |permille: u32| {
        f64::from(HEIGHT - MARGIN) - f64::from(permille) / 1000.0 * f64::from(HEIGHT - 2 * MARGIN)
    };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
         <text x=\"{MARGIN}\" y=\"20\" font-size=\"13\">{title}: share of routes that have changed at the routers</text>\n"
    );
    for share in [0, 500, 1000] {
        let y = up(share);
        let _ = writeln!(
            svg,
            "<line x1=\"{MARGIN}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#dddddd\"/>\
             <text x=\"8\" y=\"{:.1}\">{} %</text>",
            WIDTH - MARGIN,
            y + 4.0,
            share / 10
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{MARGIN}\" y=\"{}\">0 s</text><text x=\"{}\" y=\"{}\">{longest:.1} s</text>",
        HEIGHT - MARGIN + 16,
        WIDTH - MARGIN - 24,
        HEIGHT - MARGIN + 16
    );
    let drawn = all.iter().filter(|measured| measured.routes > 0);
    for (number, measured) in drawn.enumerate() {
        let colour = COLOURS.get(number % COLOURS.len()).unwrap_or(&"#000000");
        let mut points = String::new();
        let mut last = 0;
        for (at, permille) in &measured.curve {
            // A step: it was so until then.
            let _ =
                write!(points, "{:.1},{:.1} {:.1},{:.1} ", across(*at), up(last), across(*at), up(*permille));
            last = *permille;
        }
        let _ = writeln!(
            svg,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        );
        let (x, y) = (WIDTH - MARGIN - 190, MARGIN + 6 + number as u32 * 15);
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{}\" width=\"10\" height=\"3\" fill=\"{colour}\"/><text x=\"{}\" y=\"{}\">{}</text>",
            y - 4,
            x + 14,
            y,
            measured.event.title()
        );
    }
    svg + "</svg>\n"
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
