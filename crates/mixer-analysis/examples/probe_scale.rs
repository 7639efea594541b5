//! Time and memory that the linear probe takes for made-up features.
//!
//! `cargo run --release -p mixer-analysis --example probe_scale -- 10000 768 1000`
//!
//! Features of N examples, D each, in K classes: fitting once, and the accuracy on as many.

use std::time::Instant;

use mixer_analysis::LinearProbe;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut sizes = [10_000, 768, 1000];
    for (size, argument) in sizes.iter_mut().zip(std::env::args().skip(1)) {
        *size = argument.parse()?;
    }
    let [n, dim, classes] = sizes;
    let labels: Vec<u32> = (0..n).map(|example| (example % classes) as u32).collect();
    let mut state = 1_u64;
    let mut noise = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    // Each class has a direction of its own, in much noise.
    let feature = |label: u32, at: usize| f32::from(u8::from(label as usize % dim == at));
    let features: Vec<f32> = labels
        .iter()
        .flat_map(|&label| (0..dim).map(move |at| (label, at)))
        .map(|(label, at)| noise() + 0.5 * feature(label, at))
        .collect();
    let start = Instant::now();
    let probe = LinearProbe::fit(&features, &labels, classes, 1.0)?;
    let fitted = start.elapsed();
    let accuracy = probe.accuracy(&features, &labels);
    println!(
        "{n} examples, {dim} features, {classes} classes: fitted in {:.2} s, scored in {:.2} s, accuracy {:.2} %, \
         peak {} MiB",
        fitted.as_secs_f64(),
        (start.elapsed() - fitted).as_secs_f64(),
        100.0 * accuracy,
        peak_mib().unwrap_or_default()
    );
    Ok(())
}

/// The most memory that this process has held, where the system tells.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? / 1024)
}
