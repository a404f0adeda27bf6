//! How long answers took.

use std::fmt::Write as _;

use super::markup::{Text, count, step, time_us};
use crate::figures::Latency;

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 178.0;
const LEFT: f64 = 52.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 30.0;

/// A histogram and its percentiles.
pub(super) fn figure(name: &str, latency: &Latency) -> String {
    let columns = latency.buckets.len().max(1) as f64;
    let most = latency.buckets.iter().map(|bucket| bucket.count).max().unwrap_or(1).max(1);
    let (plot, base) = (WIDTH - LEFT - 12.0, HEIGHT - BOTTOM);
    let up = |number: f64| base - number / most as f64 * (base - TOP);
    let mut svg = format!(
        "<figure data-latency=\"{0}\" data-p50=\"{1}\" data-p99=\"{2}\" data-max=\"{3}\"><h3>{0}</h3>\n\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"100%\" role=\"img\" aria-label=\"Latency histogram\">\n\
         <text class=\"soft\" x=\"0\" y=\"11\" font-size=\"12\">answers</text>\n",
        Text(name),
        latency.p50,
        latency.p99,
        latency.max
    );
    let by = step(most as f64, 4).max(1.0);
    let mut tick = 0.0;
    while tick <= most as f64 {
        let y = up(tick);
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"soft\" x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"12\">{}</text>",
            WIDTH - 12.0,
            LEFT - 6.0,
            y + 4.0,
            count(tick as usize)
        );
        tick += by;
    }
    let mut labelled = f64::MIN;
    for (at, bucket) in latency.buckets.iter().enumerate() {
        let (x, wide) = (LEFT + plot * at as f64 / columns, plot / columns);
        let y = up(bucket.count as f64);
        let _ = writeln!(
            svg,
            "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"var(--accent)\" data-from-us=\"{}\" data-count=\"{}\">\
             <title>{} to {}: {}</title></rect>",
            x + 0.5,
            (wide - 1.0).max(0.5),
            base - y,
            bucket.from_us,
            bucket.count,
            time_us(bucket.from_us),
            time_us(bucket.below_us),
            count(bucket.count)
        );
        let end = at + 1 == latency.buckets.len();
        if x - labelled >= 58.0 && (!end || wide >= 58.0) {
            let _ = writeln!(
                svg,
                "<text class=\"soft\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"12\">{}</text>",
                base + 16.0,
                time_us(bucket.from_us)
            );
            labelled = x;
        }
    }
    let _ = write!(
        svg,
        "</svg>\n<p class=\"soft\">{} answers: half within {}, 90 % within {}, 99 % within {}, the slowest {}.</p></figure>\n",
        count(latency.count),
        time_us(latency.p50.into()),
        time_us(latency.p90.into()),
        time_us(latency.p99.into()),
        time_us(latency.max.into())
    );
    svg
}
