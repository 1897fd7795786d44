//! What systemd knows of a unit, drop-ins included: by its bus, for what `systemctl show` prints cannot be
//! told apart again where a value holds blanks or quotes.

use crate::program;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fmt::Write;
use std::time::Duration;
use systemd::daemon;

/// How long the bus may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The largest property that is read, in bytes.
const MAX_PROPERTY: usize = 1024 * 1024;

/// A unit by its name, as in `kubelet.service`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit(pub &'static str);

impl Unit {
    /// Has systemd such a unit? Not where systemd does not run.
    ///
    /// # Errors
    /// Systemd does not say, in words.
    pub fn is_there(self) -> Result<bool, String> {
        // Who cannot be told whether it runs has none to ask.
        if !daemon::booted().unwrap_or(false) {
            return Ok(false);
        }
        let state: String = self.property("Unit", "LoadState")?;
        Ok(state == "loaded")
    }

    /// One of its properties, by the interface that has it: `Unit`, `Service`.
    ///
    /// # Errors
    /// Systemd does not say, in words.
    pub fn property<T: DeserializeOwned>(self, interface: &str, name: &str) -> Result<T, String> {
        #[derive(Deserialize)]
        struct Property<T> {
            data: T,
        }
        let failed = |why: &str| format!("{}: systemd does not say its {name} ({why})", self.0);
        let (object, interface) = (
            self.object(),
            format!("org.freedesktop.systemd1.{interface}"),
        );
        let arguments = [
            "--json=short",
            "get-property",
            "org.freedesktop.systemd1",
            &object,
            &interface,
            name,
        ];
        let said = program::output_here("busctl", &arguments, MAX_PROPERTY, PATIENCE)
            .map_err(|why| failed(&why))?;
        serde_json::from_slice(&said)
            .map(|Property { data }| data)
            .map_err(|_| failed("busctl gave no such property"))
    }

    /// Its path on the bus: all but letters and digits is escaped.
    fn object(self) -> String {
        let mut path = String::from("/org/freedesktop/systemd1/unit/");
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() {
                path.push(char::from(byte));
            } else {
                // Writing to a String cannot fail.
                let _ = write!(path, "_{byte:02x}");
            }
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_has_a_path_on_the_bus() {
        let path = Unit("vaulttmpfs-agent.service").object();
        assert_eq!(
            path,
            "/org/freedesktop/systemd1/unit/vaulttmpfs_2dagent_2eservice"
        );
    }
}
