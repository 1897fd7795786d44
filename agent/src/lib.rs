pub mod config;
pub mod duration;
pub mod files;
pub mod options;
