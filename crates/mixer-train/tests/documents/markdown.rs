//! A page of the documents: its blocks of code, the comments that say how they are run, links and headings.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The parts of a page outside its prose, in order.
pub enum Piece {
    /// A comment of a line that says how blocks are run.
    Comment(Comment),
    Block(Block),
}

/// `<!-- before: COMMAND -->` and its kin: they are not seen by who reads the page.
#[derive(Debug, Clone)]
pub enum Comment {
    /// A command that is run first: it makes what stands for the reader's data and weights.
    Before(String),
    /// Keys and values that every training of the page has from here on, to be short.
    With(Vec<String>),
    /// The reason why the next block is not run. Its commands are parsed all the same.
    NotRun,
    /// The exit code of the commands of the next block.
    Exit(i32),
}

pub struct Block {
    pub line: usize,
    pub language: String,
    pub text: String,
}

/// A command of a `console` block, with the lines that the page shows of what it prints.
pub struct Shown {
    pub command: String,
    pub output: Vec<String>,
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// All documents, relative to the root.
pub fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            // What is built, and what a session leaves behind.
            let is_ours = !name.starts_with('.') && name != "target" && name != "runs";
            if path.is_dir() && is_ours && !path.is_symlink() {
                let is_data = folder == root().join("datasets");
                if !is_data {
                    folders.push(path);
                }
            } else if name.ends_with(".md") {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    found.sort();
    assert!(found.len() > 10, "{found:?}");
    found
}

pub fn read(page: &Path) -> String {
    std::fs::read_to_string(root().join(page)).unwrap()
}

/// Lines of code without their fence, and prose line by line.
enum Part<'a> {
    Prose(usize, &'a str),
    Code { line: usize, language: &'a str, text: String },
}

fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(language) = line.trim_start().strip_prefix("```") else {
            parts.push(Part::Prose(number + 1, line));
            continue;
        };
        let code = lines.by_ref().map(|(_, line)| line);
        let code: Vec<&str> = code.take_while(|line| line.trim() != "```").collect();
        let text = code.join("\n") + "\n";
        parts.push(Part::Code { line: number + 1, language, text });
    }
    parts
}

pub fn pieces(page: &Path) -> Vec<Piece> {
    let text = read(page);
    let piece = |part: Part<'_>| match part {
        Part::Code { line, language, text } => {
            Some(Piece::Block(Block { line, language: language.to_owned(), text }))
        }
        Part::Prose(line, prose) => {
            let comment = prose.trim().strip_prefix("<!--")?.strip_suffix("-->")?.trim();
            let at = format!("{}:{line}", page.display());
            let (key, value) = comment.split_once(": ").unwrap_or_else(|| panic!("{at}: {prose}"));
            Some(Piece::Comment(match key {
                "before" => Comment::Before(value.to_owned()),
                "with" => Comment::With(value.split(' ').map(str::to_owned).collect()),
                "not run" => Comment::NotRun,
                "exit code" => Comment::Exit(value.parse().unwrap()),
                _ => panic!("{at}: a comment of no known kind: {prose}"),
            }))
        }
    };
    parts(&text).into_iter().filter_map(piece).collect()
}

/// The blocks of a page that a shell is given.
pub fn shell_blocks(page: &Path) -> Vec<Block> {
    let blocks = pieces(page).into_iter().filter_map(|piece| match piece {
        Piece::Block(block) => Some(block),
        Piece::Comment(_) => None,
    });
    blocks.filter(Block::is_shell).collect()
}

impl Block {
    fn is_shell(&self) -> bool {
        matches!(self.language.as_str(), "sh" | "console")
    }

    /// The input of a shell: all of a `sh` block, the lines behind `$` of a `console` block.
    pub fn script(&self) -> String {
        if self.language != "console" {
            return self.text.clone();
        }
        self.shown().into_iter().map(|shown| shown.command + "\n").collect()
    }

    /// The commands of a `console` block.
    pub fn shown(&self) -> Vec<Shown> {
        let mut shown: Vec<Shown> = Vec::new();
        let mut goes_on = false;
        for line in self.text.lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                shown.push(Shown { command: command.to_owned(), output: Vec::new() });
            } else {
                let last = shown.last_mut().expect("a console block begins with `$ `");
                if goes_on {
                    last.command += &format!("\n{line}");
                } else {
                    last.output.push(line.to_owned());
                    continue;
                }
            }
            goes_on = line.ends_with('\\');
        }
        shown
    }
}

/// The places of a page that a link can name, as GitHub makes them.
pub fn anchors(text: &str) -> BTreeSet<String> {
    let prose = parts(text).into_iter().filter_map(|part| match part {
        Part::Prose(_, line) => line.starts_with('#').then_some(line),
        Part::Code { .. } => None,
    });
    let anchor = |heading: &str| -> String {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    prose.map(anchor).collect()
}

/// Targets of links, with the number of their line.
pub fn links(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for part in parts(text) {
        let Part::Prose(number, line) = part else { continue };
        // Without spans of code.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for rest in prose.split("](").skip(1) {
            if let Some((target, _)) = rest.split_once(')') {
                links.push((number, target.to_owned()));
            }
        }
    }
    links
}
