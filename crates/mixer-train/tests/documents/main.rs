//! The documents as their readers use them: links lead somewhere, every command that they show is one, and those
//! of README.md and of the guide are run, page by page, each in a folder of its own.
//!
//! A `sh` block is run as it stands. In a `console` block, lines behind `$` are run one by one, and the lines
//! after each have to be among those that it prints, in this order; any number stands for any other, and `…` for
//! whatever comes there. Comments in a page, which nobody sees, say what else is needed:
//!
//! ```text
//! <!-- before: mixer data synthesise --out photos -->    run first, to stand for the reader's own
//! <!-- with: train.steps=4 data.path=photos -->           for every training of the page from here on
//! <!-- not run: REASON -->                                the next block is only parsed
//! <!-- exit code: 4 -->                                   of the next block
//! ```
//!
//! A `python` block is a file, which its first line names: `# to_wandb.py`.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod markdown;
mod shell;

use std::path::Path;

use markdown::{Block, Comment, Piece};
use shell::Shell;

/// The arguments of `mixer` in the words of a command, also behind `srun` and `cargo run`.
fn arguments(words: &[String]) -> Option<&[String]> {
    let is_mixer = |word: &String| word == "mixer" || word.ends_with("/mixer");
    if words.first().is_some_and(|word| word == "cargo") {
        let at = words.iter().position(|word| word == "--")?;
        let is_mixer = words[1..at].iter().all(|word| word == "run" || word == "--release");
        return is_mixer.then(|| &words[at + 1..]);
    }
    let at = words.iter().take(2).position(is_mixer)?;
    Some(&words[at + 1..])
}

#[test]
fn every_command_in_a_document_is_understood_and_names_configurations_that_exist() {
    let shell = Shell::new();
    let mut understood = 0;
    for page in markdown::documents() {
        for block in markdown::shell_blocks(&page) {
            let at = format!("{}:{}", page.display(), block.line);
            for words in shell.commands(&block.script()) {
                let Some(args) = arguments(&words) else { continue };
                let line = std::iter::once("mixer").chain(args.iter().map(String::as_str));
                if let Err(error) = mixer_train::cli::command().try_get_matches_from(line) {
                    panic!("{at}: mixer {}\n{error}", args.join(" "));
                }
                for arg in args.iter().filter(|arg| arg.starts_with("configs/")) {
                    assert!(markdown::root().join(arg).exists(), "{at}: {arg}");
                }
                understood += 1;
            }
        }
    }
    assert!(understood > 100, "{understood}");
}

#[test]
fn every_link_in_a_document_leads_to_a_file_and_a_heading() {
    for page in markdown::documents() {
        let text = markdown::read(&page);
        for (line, target) in markdown::links(&text) {
            // Elsewhere, or in the documentation of a crate.
            if target.contains("://") || target.contains("::") {
                continue;
            }
            let at = format!("{}:{line}: {target}", page.display());
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let file = if file.is_empty() { page.clone() } else { page.with_file_name(file) };
            assert!(markdown::root().join(&file).exists(), "{at}");
            if !anchor.is_empty() {
                let anchors = markdown::anchors(&markdown::read(&file));
                assert!(anchors.contains(anchor), "{at} is none of {anchors:?}");
            }
        }
    }
}

/// A text in which all numbers are alike, and all space.
fn without_numbers(line: &str) -> String {
    let mut text = String::new();
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_ascii_digit() {
            let of_number = |c: &char| c.is_ascii_digit() || ".,:".contains(*c);
            let mut last = c;
            while let Some(c) = chars.next_if(of_number) {
                last = c;
            }
            text.push('0');
            // The end of a sentence or a part of it.
            text.extend((!last.is_ascii_digit()).then_some(last));
        } else {
            text.push(c);
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `true` where a line that is shown stands for one that was printed.
fn is_like(shown: &str, printed: &str) -> bool {
    let (shown, printed) = (without_numbers(shown), without_numbers(printed));
    let shown = shown.replace(" …", "…").replace("… ", "…");
    let mut parts = shown.split('…');
    let Some(mut rest) = printed.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((end, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(end)
}

/// The place where lines that are shown are not printed: the first of these. Stdout and stderr each keep their order; which
/// of them a terminal shows first is up to them.
fn missing<'a>(shown: &'a [String], streams: [&str; 2]) -> Option<&'a str> {
    let mut left = streams.map(|stream| stream.lines().collect::<Vec<_>>());
    for line in shown.iter().filter(|line| !line.trim().is_empty() && line.trim() != "…") {
        let found = left.iter_mut().find_map(|printed| {
            let at = printed.iter().position(|printed| is_like(line, printed))?;
            *printed = printed.split_off(at + 1);
            Some(())
        });
        if found.is_none() {
            return Some(line);
        }
    }
    None
}

#[test]
fn output_that_is_shown_is_compared_but_for_its_numbers() {
    assert!(is_like("done in 16 s: best 48.89 %", "done in 1.25 s: best  100 %"));
    assert!(is_like("step 10/90, …: loss 1.2  …", "step 1/4, epoch 2: loss 0.5  lr 1"));
    assert!(!is_like("step 10: loss 1.2", "step 10: loss 1.2, best"));
    assert!(!is_like("weights a.safetensors", "weights b.safetensors"));
    let shown = ["a 1".to_owned(), "…".to_owned(), "b".to_owned(), "said".to_owned()];
    assert_eq!(missing(&shown, ["a 2\nx\nb\n", "said\n"]), None);
    assert_eq!(missing(&shown, ["b\na 2\n", "said\n"]), Some("b"));
}

/// Runs the blocks of a page in turn.
fn run(page: &str) -> Shell {
    let shell = Shell::new();
    let (mut with, mut exit, mut is_run) = (Vec::new(), 0, true);
    let mut blocks = 0;
    for piece in markdown::pieces(Path::new(page)) {
        match piece {
            Piece::Comment(Comment::Before(command)) => {
                let output = shell.run(&command, &with);
                assert!(output.status.success(), "{page}: before: {command}\n{output:?}");
            }
            Piece::Comment(Comment::With(keys)) => with = keys,
            Piece::Comment(Comment::NotRun) => is_run = false,
            Piece::Comment(Comment::Exit(code)) => exit = code,
            Piece::Block(block) => {
                if is_run {
                    run_block(&shell, page, &block, &with, exit);
                    blocks += 1;
                }
                (exit, is_run) = (0, true);
            }
        }
    }
    assert!(blocks > 0, "{page} has no block that is run");
    shell
}

fn run_block(shell: &Shell, page: &str, block: &Block, with: &[String], exit: i32) {
    let at = format!("{page}:{}", block.line);
    let run = |script: &str, shown: &[String]| {
        if script.contains("python3") && !shell::has_python() {
            return;
        }
        let output = shell.run(script, with);
        let [stdout, stderr] = [&output.stdout, &output.stderr].map(|s| String::from_utf8_lossy(s));
        let all = format!("[stdout]\n{stdout}\n[stderr]\n{stderr}");
        assert_eq!(output.status.code(), Some(exit), "{at}\n{script}\n{all}");
        if let Some(line) = missing(shown, [&stdout, &stderr]) {
            panic!("{at} shows what is not printed, or not in this order: {line}\n{script}\n{all}");
        }
    };
    match block.language.as_str() {
        "sh" => run(&block.text, &[]),
        "console" => block.shown().iter().for_each(|shown| run(&shown.command, &shown.output)),
        "python" => {
            let name = block.text.lines().next().and_then(|line| line.strip_prefix("# "));
            let name = name.unwrap_or_else(|| panic!("{at} does not name its file"));
            std::fs::write(shell.work(name), &block.text).unwrap();
        }
        _ => {}
    }
}

/// A test for each page, which runs it.
macro_rules! pages {
    ($($name:ident: $page:literal,)*) => {
        $(
            #[test]
            fn $name() {
                run($page);
            }
        )*
        const PAGES: &[&str] = &[$($page,)* TRACKERS];
    };
}

pages! {
    the_readme_does_what_it_says: "README.md",
    own_pictures_are_learned_as_the_guide_says: "docs/guide/own-pictures.md",
    what_does_not_learn_is_found_out_as_the_guide_says: "docs/guide/when-it-does-not-learn.md",
    the_paper_is_reproduced_as_the_guide_says: "docs/guide/reproduce-the-paper.md",
    weights_are_fine_tuned_as_the_guide_says: "docs/guide/fine-tune-at-448.md",
    a_backend_is_picked_as_the_guide_says: "docs/guide/pick-a-backend.md",
    runs_of_weeks_are_kept_as_the_guide_says: "docs/guide/run-for-weeks.md",
    a_model_is_shipped_as_the_guide_says: "docs/guide/ship-a-model.md",
    a_teacher_and_flat_minima_are_found_as_the_guide_says: "docs/guide/teachers-and-flat-minima.md",
}

/// Run by the test that looks at what trackers got.
const TRACKERS: &str = "docs/guide/trackers.md";

#[test]
fn every_page_of_the_guide_is_run_and_listed() {
    let index = markdown::read(Path::new("docs/guide/README.md"));
    for page in markdown::documents() {
        let Ok(name) = page.strip_prefix("docs/guide") else { continue };
        let name = name.display().to_string();
        if name != "README.md" {
            assert!(PAGES.contains(&page.to_str().unwrap()), "{name}");
            assert!(index.contains(&format!("]({name})")), "{name}");
        }
    }
}

#[test]
fn each_tracker_gets_the_curves_of_the_run() {
    let shell = run(TRACKERS);
    if !shell::has_python() {
        return;
    }
    let read = |path: &str| -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(shell.work(path)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let metrics = read("runs/photos/metrics.jsonl");
    let calls = read("calls.jsonl");
    for (tracker, log) in [("wandb", "log"), ("mlflow", "log_metrics"), ("trackio", "log")] {
        let logged: Vec<_> = calls.iter().filter(|c| c[0] == tracker && c[1] == log).collect();
        assert_eq!(logged.len(), metrics.len(), "{tracker}: {logged:?}");
        for (call, line) in logged.iter().zip(&metrics) {
            assert_eq!(call[3]["step"], line["step"], "{tracker}");
            let values = &call[2][0];
            let kind = line["kind"].as_str().unwrap();
            let keys = if kind == "train" { ["loss", "lr"] } else { ["loss", "top1"] };
            for key in keys {
                assert_eq!(values[format!("{kind}/{key}")], line[key], "{tracker}: {call}");
            }
        }
    }
}
