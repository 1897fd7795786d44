//! Installed on a node: from the packages, run by a real systemd, with Vault beside it.

mod machine;
