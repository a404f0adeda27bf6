//! What a service manager is told (sd_notify(3)); nothing happens without `NOTIFY_SOCKET`.

use std::time::Duration;

use sd_notify::NotifyState;

/// The connection to the service manager.
#[derive(Debug)]
pub(crate) struct Notifier {
    present: bool,
    watchdog: Option<Duration>,
    stale: bool,
    said: String,
}

impl Notifier {
    /// As `NOTIFY_SOCKET` and `WATCHDOG_USEC` say.
    pub(crate) fn from_environment() -> Notifier {
        Notifier {
            present: std::env::var_os("NOTIFY_SOCKET").is_some(),
            watchdog: sd_notify::watchdog_enabled(),
            stale: true,
            said: String::new(),
        }
    }

    fn say(&self, state: NotifyState<'_>) {
        if self.present
            && let Err(error) = sd_notify::notify(&[state])
        {
            tracing::debug!("the service manager cannot be told: {error}");
        }
    }

    pub(crate) fn ready(&self) {
        self.say(NotifyState::Ready);
    }

    /// This process becomes another program; that one says when it is ready.
    pub(crate) fn reloading(&self) {
        // Both in one message, or it counts for nothing.
        if self.present
            && let Ok(now) = NotifyState::monotonic_usec_now()
            && let Err(error) = sd_notify::notify(&[NotifyState::Reloading, now])
        {
            tracing::debug!("the service manager cannot be told: {error}");
        }
        self.alive();
    }

    pub(crate) fn stopping(&self) {
        self.say(NotifyState::Stopping);
    }

    /// How often to say that the loop lives: half of what is asked for, as sd_watchdog_enabled(3) advises.
    pub(crate) fn watchdog_period(&self) -> Option<Duration> {
        self.watchdog.map(|period| (period / 2).max(Duration::from_millis(10)))
    }

    pub(crate) fn alive(&self) {
        if self.watchdog.is_some() {
            self.say(NotifyState::Watchdog);
        }
    }

    /// Something changed: the status line may be another.
    pub(crate) fn touch(&mut self) {
        self.stale = true;
    }

    /// Tells the status line if something changed and somebody listens.
    pub(crate) fn status(&mut self, make: impl FnOnce() -> String) {
        if !self.present || !std::mem::take(&mut self.stale) {
            return;
        }
        let line = make();
        if line != self.said {
            self.say(NotifyState::Status(&line));
            self.said = line;
        }
    }
}
/// One line for `systemctl status`.
pub(crate) fn summary(status: &anyvip_core::status::Status) -> String {
    let vips: Vec<_> = status.services.iter().flat_map(|service| &service.vips).collect();
    let announced = vips.iter().filter(|vip| vip.peers.iter().any(|peer| peer.advertised)).count();
    let sessions = status.peers.iter().filter(|peer| peer.protocol == "bgp");
    let (all, up) =
        sessions.fold((0, 0), |(all, up), peer| (all + 1, up + u32::from(peer.state == "Established")));
    format!("{announced} of {} VIPs announced, {up} of {all} BGP sessions up", vips.len())
}
