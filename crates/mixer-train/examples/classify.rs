//! Answers what is in pictures.
//!
//! ```sh
//! cargo run --release --example classify -- runs/quickstart picture.jpg
//! ```

use mixer_train::classifier::Classifier;
use mixer_train::device;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let weights = args.next().ok_or("usage: classify WEIGHTS PICTURE...")?;
    let classifier = Classifier::open(weights, &device::open("auto")?)?;
    for answer in classifier.classify(args)? {
        let answer = answer?;
        let best = &answer.top(1)[0];
        println!("{}: {} ({:.1} %)", answer.path.display(), best.class, 100.0 * best.probability);
    }
    Ok(())
}
