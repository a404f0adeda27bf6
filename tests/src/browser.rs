//! A real browser without a window (Debian's `chromium`), to look at pages as people will.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::scratch::Scratch;

/// Runs inside a copy of a page and puts what it finds where [`Browser::inspect`] reads it.
const INSPECTION: &str = r#"<script>
addEventListener('load', () => {
  const marks = [...document.querySelectorAll('main *')].filter(e => Object.keys(e.dataset).length)
    .map(e => ({...e.dataset, tag: e.tagName.toLowerCase(), text: e.textContent.trim(), figure: {...(e.closest('figure') || e).dataset}}));
  const bars = [...document.querySelectorAll('td[data-flows]')].map(e => ({
    measurement: e.dataset.measurement, flows: +e.dataset.flows,
    share: e.querySelector('i').getBoundingClientRect().width / e.querySelector('.track').getBoundingClientRect().width}));
  const overlaps = [], outside = [];
  for (const svg of document.querySelectorAll('main svg')) {
    const frame = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll('text')].map(e => ({words: e.textContent, at: e.getBoundingClientRect()}));
    texts.forEach((a, n) => {
      if (a.at.left < frame.left - 1 || a.at.right > frame.right + 1 || a.at.top < frame.top - 1 || a.at.bottom > frame.bottom + 1)
        outside.push(a.words);
      for (const b of texts.slice(n + 1)) {
        const wide = Math.min(a.at.right, b.at.right) - Math.max(a.at.left, b.at.left);
        const tall = Math.min(a.at.bottom, b.at.bottom) - Math.max(a.at.top, b.at.top);
        // Lines of one paragraph touch by their leading.
        if (wide > 1 && tall > 3) overlaps.push(a.words + ' | ' + b.words);
      }
    });
  }
  // Drawn much larger than meant: letters would be, too.
  const swollen = [...document.querySelectorAll('main svg')]
    .filter(e => e.getBoundingClientRect().width > 1.25 * e.viewBox.baseVal.width).map(e => e.getAttribute('aria-label'));
  const found = {
    swollen, marks, bars, overlaps, outside, title: document.title, images: document.images.length,
    scripts: document.scripts.length, fetched: performance.getEntriesByType('resource').map(e => e.name),
    background: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(document.body).color,
    wide: document.documentElement.scrollWidth > innerWidth,
    data: document.getElementById('data').textContent,
  };
  const place = document.createElement('pre');
  place.id = 'found';
  place.textContent = JSON.stringify(found);
  document.body.append(place);
});
</script>"#;

/// How a page is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Light {
    /// What most readers have.
    Light,
    /// `prefers-color-scheme: dark`.
    Dark,
    /// A4, as wide as its margins leave it.
    Paper,
}

/// A browser with a profile of its own.
#[derive(Debug, Default)]
pub struct Browser {
    scratch: Scratch,
}

impl Browser {
    /// Opens a page, as it is, and gives what the browser wrote to its console.
    pub fn console(&self, page: &Path) -> Vec<String> {
        let (_, said) = self.open(page, Light::Light, &["--dump-dom".to_owned()]);
        said.lines().filter(|line| line.contains(":CONSOLE")).map(str::to_owned).collect()
    }

    /// A picture of a page, as PNG.
    pub fn screenshot(&self, page: &Path, light: Light, (width, height): (u32, u32)) -> Vec<u8> {
        let file = self.scratch.path().join("screenshot.png");
        let _ = fs::remove_file(&file);
        let size = format!("--window-size={width},{height}");
        let (_, said) = self.open(page, light, &[size, format!("--screenshot={}", file.display())]);
        fs::read(&file).unwrap_or_else(|error| panic!("no screenshot ({error}): {said}"))
    }

    /// The page on paper, as PDF.
    pub fn print(&self, page: &Path) -> Vec<u8> {
        let file = self.scratch.path().join("print.pdf");
        let (_, said) = self.open(page, Light::Light, &[format!("--print-to-pdf={}", file.display())]);
        fs::read(&file).unwrap_or_else(|error| panic!("no PDF ({error}): {said}"))
    }

    /// What is in a page once it is laid out: its marks (`data-…`), its data, texts that lie over each other, and more. The
    /// page must forbid scripts; its copy allows this one.
    pub fn inspect(&self, page: &Path, light: Light) -> Value {
        const RULE: &str = "default-src 'none'; style-src 'unsafe-inline'";
        let text = fs::read_to_string(page).expect("read a page");
        assert!(text.contains(RULE), "the page does not forbid scripts");
        let open =
            text.replace(RULE, "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'");
        // A browser without a window does not lay out for paper while scripts look on: what is for paper is for all here.
        const PAPER: &str = "@media print {";
        assert!(open.contains(PAPER), "the page says nothing about paper");
        let (open, size) = match light {
            Light::Paper => (open.replace(PAPER, "@media all {"), "--window-size=688,900"),
            _ => (open, "--window-size=1200,900"),
        };
        let (before, after) = open.rsplit_once("</body>").expect("a body");
        let copy = self.scratch.write("page.html", &format!("{before}{INSPECTION}</body>{after}"));
        let (dom, said) = self.open(&copy, light, &["--dump-dom".to_owned(), size.to_owned()]);
        let found = dom
            .rsplit_once("<pre id=\"found\">")
            .and_then(|(_, rest)| rest.split_once("</pre>"))
            .unwrap_or_else(|| panic!("the inspection did not run: {said}\n{dom:.2000}"));
        let text = found
            .0
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&nbsp;", "\u{a0}")
            .replace("&amp;", "&");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:.500}"))
    }

    fn open(&self, page: &Path, light: Light, arguments: &[String]) -> (String, String) {
        let profile: PathBuf = self.scratch.path().join("profile");
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", "120", "chromium", "--headless", "--no-sandbox", "--disable-gpu"]);
        // Containers have a small /dev/shm, and nothing here may look for the network.
        command.args([
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--no-first-run",
            "--disable-background-networking",
        ]);
        command.args(["--enable-logging=stderr", "--force-device-scale-factor=1"]);
        command.arg(format!("--user-data-dir={}", profile.display()));
        if light == Light::Dark {
            command.arg("--force-dark-mode");
        }
        let output =
            command.args(arguments).arg(format!("file://{}", page.display())).output().expect("run chromium");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "chromium: {}: {said}", output.status);
        (String::from_utf8_lossy(&output.stdout).into_owned(), said)
    }
}
