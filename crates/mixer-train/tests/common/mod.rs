//! Runs the real binary in a temporary directory, and makes what it reads there.

// Every test binary uses a part of this.
#![allow(dead_code)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[cfg(feature = "flex")]
pub mod in_process;
pub mod references;
pub mod run;

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Alone, no command on a CPU takes a second.
const LIMIT: Duration = Duration::from_secs(30);

/// A network, data and a length that take a fraction of a second.
pub const BUILTIN: &str = r#"
[model]
image_size = 8
patch_size = 4
hidden_dim = 8
num_blocks = 2

[data]
source = "builtin"
train_examples = 40
val_examples = 20

[train]
batch_size = 8
steps = 6
log_every_steps = 2
eval_every_steps = 3
"#;

/// The same network on the folder `data` that [`Workplace::with_pictures`] makes.
pub const FOLDER: &str = r#"
[model]
image_size = 8
patch_size = 4
hidden_dim = 8
num_blocks = 2

[data]
path = "data"

[optimizer]
learning_rate = 0.01

[train]
batch_size = 4
steps = 6
eval_every_steps = 3
"#;

/// A temporary working directory.
pub struct Workplace {
    folder: tempfile::TempDir,
    /// A command that takes longer hangs.
    pub limit: Duration,
}

impl Workplace {
    /// With `builtin.toml` in it.
    pub fn new() -> Workplace {
        let place = Workplace { folder: tempfile::tempdir().unwrap(), limit: LIMIT };
        place.write("builtin.toml", BUILTIN);
        place
    }

    /// With `folder.toml` and the folder `data` of two classes, `blue` and `red`.
    pub fn with_pictures() -> Workplace {
        let place = Workplace::new();
        place.write("folder.toml", FOLDER);
        place.pictures("data", &["blue", "red"]);
        place
    }

    /// With a run of `folder.toml` in `run`.
    pub fn with_run() -> Workplace {
        let place = Workplace::with_pictures();
        place.mixer(&["pretrain", "folder.toml", "--run-dir", "run"]).succeeds();
        place
    }

    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(path)
    }

    pub fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.path(path)).unwrap()
    }

    pub fn text(&self, path: &str) -> String {
        String::from_utf8(self.read(path)).unwrap()
    }

    pub fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// A data folder: six pictures of each class to train on, three to evaluate on.
    pub fn pictures(&self, root: &str, classes: &[&str]) {
        for class in classes {
            for (split, count) in [("train", 6), ("val", 3)] {
                for number in 0..count {
                    self.write(&format!("{root}/{split}/{class}/{number}.bmp"), plain_bmp(class));
                }
            }
        }
    }

    /// Runs `mixer` here and waits.
    pub fn mixer(&self, args: &[&str]) -> Outcome {
        let outputs = tempfile::tempdir().unwrap();
        let open = |name: &str| File::create(outputs.path().join(name)).unwrap();
        let (stdout, stderr) = (open("stdout").into(), open("stderr").into());
        let code = self.run(args, stdout, stderr, |_| {});
        let read = |name: &str| fs::read_to_string(outputs.path().join(name)).unwrap();
        Outcome {
            command: format!("mixer {}", args.join(" ")),
            code,
            stdout: read("stdout"),
            stderr: read("stderr"),
        }
    }

    /// Runs `mixer` here with a file as its stdin.
    pub fn mixer_with_input(&self, args: &[&str], input: &str) -> Outcome {
        let output = Command::new(env!("CARGO_BIN_EXE_mixer"))
            .args(args)
            .current_dir(self.folder.path())
            .stdin(File::open(self.path(input)).unwrap())
            .output()
            .unwrap();
        Outcome {
            command: format!("mixer {} < {input}", args.join(" ")),
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs `mixer` with pipes that nobody reads, as in `mixer … | true`; gives the exit code.
    pub fn mixer_with_closed_output(&self, args: &[&str]) -> Option<i32> {
        self.run(args, Stdio::piped(), Stdio::piped(), |child| {
            drop(child.stdout.take());
            drop(child.stderr.take());
        })
    }

    /// Starts `mixer` here.
    pub fn start(&self, args: &[&str], stdout: Stdio, stderr: Stdio) -> Child {
        Command::new(env!("CARGO_BIN_EXE_mixer"))
            .args(args)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap()
    }

    fn run(
        &self,
        args: &[&str],
        stdout: Stdio,
        stderr: Stdio,
        started: impl FnOnce(&mut Child),
    ) -> Option<i32> {
        let mut child = self.start(args, stdout, stderr);
        started(&mut child);
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            if start.elapsed() > self.limit {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("took longer than {:?}: mixer {}", self.limit, args.join(" "));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// What a command did.
pub struct Outcome {
    pub command: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { command, code, stdout, stderr } = self;
        write!(f, "\n$ {command}\nexit code {code:?}\n[stdout]\n{stdout}\n[stderr]\n{stderr}")
    }
}

impl Outcome {
    /// Checks that it succeeded; gives its data.
    pub fn succeeds(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert!(self.errors().is_empty(), "{self:?}");
        self.stdout
    }

    /// Checks that it failed as every bad input has to: the documented exit code, one `error:` that
    /// contains each of `words`, at most one `hint:`, no data, no panic.
    pub fn fails(self, code: i32, words: &[&str]) -> Outcome {
        assert_eq!(self.stdout, "", "an error comes without data: {self:?}");
        self.fails_in_part(code, words)
    }

    /// The same where there are data beside what failed.
    pub fn fails_in_part(self, code: i32, words: &[&str]) -> Outcome {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.errors().len(), 1, "one error: {self:?}");
        let hints = self.stderr.lines().filter(|line| line.starts_with("hint: ")).count();
        assert!(hints <= 1, "at most one hint: {self:?}");
        for bug in ["panicked", "RUST_BACKTRACE", "unexpected:", "bug"] {
            assert!(!self.stderr.contains(bug), "{bug}: {self:?}");
        }
        let error = self.error();
        let first = error.lines().next().unwrap_or_default();
        assert!(!first.ends_with('.'), "no final period: {self:?}");
        for word in words {
            assert!(error.contains(word), "`{word}` is not in the error: {self:?}");
        }
        self
    }

    /// Checks the advice.
    pub fn hints(self, words: &str) -> Outcome {
        let hint = self.stderr.lines().find(|line| line.starts_with("hint: "));
        assert!(hint.is_some_and(|hint| hint.contains(words)), "`{words}`: {self:?}");
        self
    }

    /// The error with its excerpt, without its hint.
    fn error(&self) -> String {
        let lines = self.stderr.lines().skip_while(|line| !line.starts_with("error: "));
        lines.take_while(|line| !line.starts_with("hint: ")).collect::<Vec<_>>().join("\n")
    }

    fn errors(&self) -> Vec<&str> {
        self.stderr.lines().filter(|line| line.starts_with("error: ")).collect()
    }
}

/// A picture of the colour that its class is named after.
pub fn plain_bmp(class: &str) -> Vec<u8> {
    let rgb = match class {
        "red" => [220, 20, 20],
        "green" => [20, 220, 20],
        "blue" => [20, 20, 220],
        _ => [128, 128, 128],
    };
    bmp(10, 9, rgb)
}

/// An uncompressed bitmap.
pub fn bmp(width: u32, height: u32, [red, green, blue]: [u8; 3]) -> Vec<u8> {
    let mut row = [blue, green, red].repeat(width as usize);
    row.resize(row.len().next_multiple_of(4), 0);
    let mut file = bmp_header(width, height);
    file.extend(row.repeat(height as usize));
    file
}

/// The header of a bitmap, which promises pixels.
pub fn bmp_header(width: u32, height: u32) -> Vec<u8> {
    let mut header = b"BM".to_vec();
    let (no_compression, planes, bits_per_pixel) = (0_u32, 1_u16, 24_u16);
    for value in [54, 0, 54, 40, width, height] {
        header.extend(value.to_le_bytes());
    }
    header.extend(planes.to_le_bytes());
    header.extend(bits_per_pixel.to_le_bytes());
    for value in [no_compression, 0, 0, 0, 0, 0] {
        header.extend(value.to_le_bytes());
    }
    header
}

/// A whole JPEG.
pub fn jpeg() -> Vec<u8> {
    let fixture = "../mixer-data/tests/fixtures/decode/baseline.jpg";
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(fixture)).unwrap()
}

/// A safetensors file of zeros.
pub fn safetensors(tensors: &[(&str, &[usize])]) -> Vec<u8> {
    use safetensors::tensor::{Dtype, TensorView};
    let zeros: Vec<Vec<u8>> =
        tensors.iter().map(|(_, shape)| vec![0; 4 * shape.iter().product::<usize>()]).collect();
    let views = tensors.iter().zip(&zeros).map(|((name, shape), zeros)| {
        (*name, TensorView::new(Dtype::F32, shape.to_vec(), zeros).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

/// The same tensors without metadata: no class names, no architecture.
pub fn without_metadata(bytes: &[u8]) -> Vec<u8> {
    let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
    safetensors::serialize(file.iter(), None).unwrap()
}

/// The same tensors but one.
pub fn without_tensor(bytes: &[u8], name: &str) -> Vec<u8> {
    let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
    let rest = file.iter().filter(|(found, _)| *found != name);
    safetensors::serialize(rest, None).unwrap()
}
