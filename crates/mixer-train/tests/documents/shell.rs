//! A shell in a folder of its own, in which the commands of a page are run, or only written down.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::markdown::root;

/// The program as a page calls it. Trainings get what `<!-- with: … -->` says, pictures are small, and
/// nothing is measured for long.
const MIXER: &str = r#"#!/bin/bash
case "$1 $2" in
    "pretrain "* | "finetune "* | "config check" | "config show" | "data sheet")
        for pair in $WITH; do set -- "$@" --set "$pair"; done ;;
    "data synthesise") set -- "$@" --image-size 32 ;;
    "bench train" | "bench infer") set -- "$@" --image-size 32 --steps 1 --warmup 0 ;;
esac
# Nothing is read that is not trained on.
case $1 in pretrain | finetune) set -- "$@" --set data.queue_mib=1 ;; esac
exec -a "${MIXER_NAME:-mixer}" "$MIXER" "$@"
"#;

/// The stand-ins for the data and the weights of a reader: `stand-in pictures DIR`, `stand-in imagenet DIR`,
/// `stand-in weights FILE` of patches of 16 px at 224 px, `stand-in run DIR PICTURES`.
const STAND_IN: &str = r#"#!/bin/bash
# $1: the run, $2: of [data], $3: side of the picture, $4: of a patch.
train() {
    printf '%s\n' '[model]' "image_size = $3" "patch_size = $4" 'hidden_dim = 8' 'num_blocks = 2' '[data]' "$2" \
        '[train]' 'batch_size = 8' 'steps = 6' 'log_every_steps = 2' 'eval_every_steps = 3' > stand-in.toml
    "$MIXER" pretrain stand-in.toml --run-dir "$1" && rm stand-in.toml
}
case $1 in
    pictures)
        "$MIXER" data synthesise --out "$2" --classes 3 --examples 36 --val-examples 9 --image-size 32 ;;
    imagenet)
        # With its other test sets beside it.
        "$0" pictures "$2" && cp -r "$2/val" imagenet-a
        index=0 number=0
        for class in "$2"/val/*; do
            mkdir -p imagenetv2-matched-frequency && cp -r "$class" "imagenetv2-matched-frequency/$((index++))"
            for picture in "$class"/*; do
                mv "$picture" "$class/$(printf ILSVRC2012_val_%08d "$((++number))").${picture##*.}"
            done
        done
        echo '[[0], [0, 1], [], [1], [1], [1], [2], [2], [2]]' > real.json ;;
    weights)
        train weights.run $'source = "builtin"\ntrain_examples = 16\nval_examples = 8' 224 16
        mkdir -p "$(dirname "$2")"
        "$MIXER" weights convert weights.run --out "$2" && rm -r weights.run ;;
    run)
        train "$2" "path = \"$3\"" 32 4 ;;
esac
"#;

/// `cargo run --release -- …`, without building.
const CARGO: &str = r#"#!/bin/bash
[ "$1 $2 $3" = "run --release --" ] || { echo "not a command to run here: cargo $*" >&2; exit 1; }
MIXER_NAME=target/release/mixer exec mixer "${@:4}"
"#;

/// The queue lets it run at once.
const SRUN: &str = "#!/bin/bash\nexec \"$@\"\n";

/// A tracker that only says what it is asked to do.
const TRACKER: &str = r#"
import json
class Run:
    def __enter__(self): return self
    def __exit__(self, *_): pass
def __getattr__(name):
    def called(*args, **named):
        with open("calls.jsonl", "a") as file:
            file.write(json.dumps([__name__, name, args, named], default=str) + "\n")
        return Run()
    if name.startswith("__"): raise AttributeError(name)
    return called
"#;

/// A folder with the configurations of the repository and its own `PATH`.
pub struct Shell {
    folder: tempfile::TempDir,
}

impl Shell {
    pub fn new() -> Shell {
        let shell = Shell { folder: tempfile::tempdir().unwrap() };
        fs::create_dir_all(shell.path("work")).unwrap();
        for (path, text) in
            [("mixer", MIXER), ("stand-in", STAND_IN), ("cargo", CARGO), ("srun", SRUN)]
        {
            let path = format!("bin/{path}");
            shell.write(&path, text);
            fs::set_permissions(shell.path(&path), fs::Permissions::from_mode(0o755)).unwrap();
        }
        for module in ["wandb", "mlflow", "trackio"] {
            shell.write(&format!("python/{module}.py"), TRACKER);
        }
        for folder in ["", "pretrain", "finetune"] {
            for entry in fs::read_dir(root().join("configs").join(folder)).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    let below = path.strip_prefix(root()).unwrap().display();
                    shell.write(&format!("work/{below}"), fs::read_to_string(&path).unwrap());
                }
            }
        }
        shell
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// The path of a file as a page names it.
    pub fn work(&self, path: impl AsRef<Path>) -> PathBuf {
        self.path("work").join(path)
    }

    fn write(&self, path: &str, text: impl AsRef<str>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text.as_ref()).unwrap();
    }

    /// Runs a script, with these keys for every training, for at most a minute.
    pub fn run(&self, script: &str, with: &[String]) -> Output {
        let path = std::env::var("PATH").unwrap_or_default();
        Command::new("timeout")
            .args(["60", "bash", "-euo", "pipefail", "-c", script])
            .current_dir(self.path("work"))
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("PYTHONPATH", self.path("python"))
            .env("HOME", self.path("work"))
            .env("MIXER", env!("CARGO_BIN_EXE_mixer"))
            .env("WITH", with.join(" "))
            .output()
            .unwrap()
    }

    /// The commands that a script has, word by word, as a shell understands it. None of them is run.
    pub fn commands(&self, script: &str) -> Vec<Vec<String>> {
        let list = self.path("commands");
        drop(fs::remove_file(&list));
        // Nothing is found on this path, so that every program gets here.
        let recording =
            "command_not_found_handle() { printf '%s\\0' \"$@\" '' >> \"$LIST\"; return 0; }\n";
        let output = Command::new("/bin/bash")
            .args(["-c", &format!("{recording}{script}")])
            .current_dir(self.path("work"))
            .env("PATH", self.path("nothing"))
            .env("LIST", &list)
            .output()
            .unwrap();
        // A program with a slash in its name is looked for, and not found.
        let says = String::from_utf8_lossy(&output.stderr);
        assert!(!says.contains("syntax error") && !says.contains("unexpected"), "{says}\n{script}");
        let recorded = fs::read_to_string(&list).unwrap_or_default();
        let commands = recorded.split_terminator("\0\0");
        commands.map(|words| words.split('\0').map(str::to_owned).collect()).collect()
    }
}

pub fn has_python() -> bool {
    Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success())
}
