//! The figures, for people as a Markdown table and for programs as JSON.

use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// All figures, in the order of their measurement.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
    series: Vec<Value>,
}

/// One figure.
pub(crate) struct Row {
    what: String,
    figure: f64,
    unit: &'static str,
    beside: Option<(f64, &'static str)>,
    demand: Option<Demand>,
}

/// What a figure must be at most.
enum Demand {
    /// So many times what it stands beside.
    Ratio(f64),
    /// So much.
    Figure(f64),
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, figure: f64, unit: &'static str) -> Self {
        Self {
            what: what.into(),
            figure,
            unit,
            beside: None,
            demand: None,
        }
    }

    /// A time, in milliseconds.
    pub(crate) fn time(what: impl Into<String>, time: Duration) -> Self {
        Self::new(what, milliseconds(time), "ms")
    }

    /// What it is compared with, and its name.
    pub(crate) fn beside(mut self, figure: f64, name: &'static str) -> Self {
        self.beside = Some((figure, name));
        self
    }

    /// It must be at most so many times what it is compared with.
    pub(crate) fn at_most_times(mut self, ratio: f64) -> Self {
        self.demand = Some(Demand::Ratio(ratio));
        self
    }

    /// It must be at most so much.
    pub(crate) fn at_most(mut self, figure: f64) -> Self {
        self.demand = Some(Demand::Figure(figure));
        self
    }

    fn ratio(&self) -> Option<f64> {
        self.beside.map(|(figure, _)| self.figure / figure)
    }

    fn holds(&self) -> Option<bool> {
        match self.demand {
            None => None,
            Some(Demand::Ratio(most)) => self.ratio().map(|ratio| ratio <= most),
            Some(Demand::Figure(most)) => Some(self.figure <= most),
        }
    }

    fn markdown(&self) -> String {
        let unit = self.unit;
        let beside = self.beside.map_or(String::new(), |(figure, name)| {
            format!("{name}: {} {unit}", short(figure))
        });
        let ratio = self
            .ratio()
            .map_or(String::new(), |ratio| format!("{ratio:.2}"));
        let mut demand = match self.demand {
            None => String::new(),
            Some(Demand::Ratio(most)) => format!("× {most}"),
            Some(Demand::Figure(most)) => format!("{} {unit}", short(most)),
        };
        if self.holds() == Some(false) {
            demand.push_str(" **missed**");
        }
        let figure = short(self.figure);
        format!(
            "| {} | {figure} {unit} | {beside} | {ratio} | {demand} |",
            self.what
        )
    }

    fn json(&self) -> Value {
        json!({
            "what": self.what,
            "figure": self.figure,
            "unit": self.unit,
            "beside": self.beside.map(|(figure, name)| json!({"figure": figure, "what": name})),
            "ratio": self.ratio(),
            "ratio_at_most": match self.demand { Some(Demand::Ratio(most)) => Some(most), _ => None },
            "figure_at_most": match self.demand { Some(Demand::Figure(most)) => Some(most), _ => None },
            "holds": self.holds(),
        })
    }
}

impl Table {
    #[expect(
        clippy::print_stderr,
        reason = "it takes minutes in all: something is seen to happen, and the table stays whole"
    )]
    pub(crate) fn add(&mut self, row: Row) {
        eprintln!("{}", row.markdown());
        self.rows.push(row);
    }

    /// Figures over time: only in the JSON, a table has no room for them.
    pub(crate) fn add_series(&mut self, what: &str, figures: &[u32]) {
        self.series.push(json!({"what": what, "figures": figures}));
    }

    pub(crate) fn print(&self) {
        println!("{}", machine());
        println!();
        println!("| what | figure | beside | ratio | at most |");
        println!("|---|---:|---|---:|---|");
        for row in &self.rows {
            println!("{}", row.markdown());
        }
    }

    pub(crate) fn write(&self, path: &Path) {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let all = json!({"machine": machine(), "rows": rows, "series": self.series});
        fs::write(path, format!("{all:#}\n")).expect("the figures' file");
        println!();
        println!("The same as JSON: {}", path.display());
    }
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Three digits, or all before the point.
fn short(figure: f64) -> String {
    let digits = if figure == 0.0 || figure.fract() == 0.0 || figure.abs() >= 100.0 {
        0
    } else if figure.abs() >= 10.0 {
        1
    } else if figure.abs() >= 1.0 {
        2
    } else {
        3
    };
    format!("{figure:.digits$}")
}

/// The machine, so that numbers can be judged.
fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model)
        .to_owned();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}
