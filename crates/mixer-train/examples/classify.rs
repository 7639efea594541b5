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
        let path = answer.path.display();
        match answer.scores.map(|scores| scores.top(1)) {
            Ok(best) => {
                println!("{path}: {} ({:.1} %)", best[0].class, 100.0 * best[0].probability)
            }
            Err(reason) => println!("{path}: {reason}"),
        }
    }
    Ok(())
}
