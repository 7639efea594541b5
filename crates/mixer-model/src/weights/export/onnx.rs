//! Weights to an ONNX model: opset 17, `f32`, any number of pictures at once.
//!
//! Token mixing multiplies from the left, so that nothing is transposed but once behind the embedding. GELU
//! is written with `Erf` or `Tanh`: an operator `Gelu` exists from opset 20 on only.
//!
//! # Source
//! `onnx.proto` of ONNX 1.12 (IR version 8), and its operators.

use std::io::Write;
use std::path::Path;

use crate::count::weights_bytes;
use crate::error::ModelError;
use crate::mixer::Gelu;
use crate::mixer::layer_norm::EPSILON;
use crate::protobuf::Message;
use crate::tensor::HostTensor;
use crate::weights::metadata::Preprocessing;
use crate::weights::shuffle::Shuffle;
use crate::weights::weights::Weights;
use crate::weights::write_atomically::write_atomically;

/// Place where pictures become the network's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnnxInput {
    /// Before the model: its input is normalised.
    Normalised,
    /// In the model: its input is red, green and blue from 0 to 255.
    Pixels,
}

/// The largest file: what protobuf takes.
const MAX_BYTES: u64 = i32::MAX as u64;

/// Refuses a model that protobuf cannot hold.
fn check_size(bytes: u64) -> Result<(), ModelError> {
    if bytes > MAX_BYTES { Err(ModelError::TooLargeForOnnx { bytes }) } else { Ok(()) }
}

impl Weights {
    /// Writes an ONNX model: input `images`, `[N, 3, H, W]`, output `logits`, `[N, K]`. Class names and the
    /// preparation of pictures stand as JSON in its metadata, under `classes` and `preprocessing`; under
    /// `temperature` the number that logits are to be divided by before they become probabilities, where it is
    /// known. Where pictures are shuffled, the model does it, and `shuffle` says how.
    ///
    /// The file appears whole or not at all.
    ///
    /// # Errors
    /// [`ModelError::TooLargeForOnnx`] above 2 GiB; [`ModelError::NotForNetwork`] of a BiT-ResNet; those of
    /// [`Weights::write_safetensors`].
    ///
    /// # Determinism
    /// The bytes are a function of the arguments.
    pub fn write_onnx(&self, path: &Path, input: OnnxInput) -> Result<(), ModelError> {
        self.refuse_resnet("an ONNX model")?;
        // Before anything is copied: the weights are nearly all of the file.
        check_size(weights_bytes(&self.config))?;
        self.validate()?;
        self.check_finite()?;
        if !self.shuffle().is_none() {
            // Of the order of the pixels, before there is one: the sizes are what a file claims.
            let bytes = (self.config.image_size as u64).saturating_pow(2).saturating_mul(8);
            if bytes > MAX_BYTES {
                return Err(ModelError::TooLargeForOnnx { bytes });
            }
        }
        let (head, initializers) = self.onnx(input)?;
        write_atomically(path, |out| {
            out.write_all(head.as_bytes())?;
            for Initializer { head, tensor, .. } in &initializers {
                out.write_all(head.as_bytes())?;
                for values in tensor.data.chunks(1 << 16) {
                    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                    out.write_all(&bytes)?;
                }
            }
            Ok(())
        })
        .map_err(|source| ModelError::Io { source })
    }

    /// The model up to its initializers, which come last.
    fn onnx(&self, input: OnnxInput) -> Result<(Message, Vec<Initializer>), ModelError> {
        let mut graph = Graph {
            nodes: Message::new(),
            count: 0,
            initializers: Vec::new(),
            gelu: self.config.gelu,
        };
        let output = self.graph(&mut graph, input);
        let side = self.config.image_size;
        let sides = [Err("N"), Ok(3), Ok(side), Ok(side)];
        let graph_name = match self.config.tokens.num_heads() {
            None => "mlp_mixer",
            Some(_) => "vision_transformer",
        };
        let nodes = graph
            .nodes
            .text(2, graph_name)
            .message(11, value_info("images", &sides))
            .message(12, value_info(&output, &[Err("N"), Ok(self.config.num_classes)]));
        let length = graph.initializers.iter().map(Initializer::bytes).sum::<usize>()
            + nodes.as_bytes().len();
        let mut model = Message::new()
            .number(1, 8)
            .text(2, "mixer")
            .text(3, env!("CARGO_PKG_VERSION"))
            .message(8, Message::new().number(2, 17));
        for (key, value) in self.onnx_metadata(input)? {
            model = model.message(14, Message::new().text(1, key).text(2, &value));
        }
        check_size((length + model.as_bytes().len()) as u64)?;
        Ok((model.announced(7, length).and(nodes), graph.initializers))
    }

    fn onnx_metadata(&self, input: OnnxInput) -> Result<Vec<(&'static str, String)>, ModelError> {
        let io = |error: serde_json::Error| ModelError::Io { source: error.into() };
        let preprocessing = self.metadata.preprocessing.unwrap_or_default();
        // Only what is to be done before the model.
        let before = Preprocessing { shuffle: Shuffle::None, ..preprocessing };
        let mut metadata = vec![
            ("preprocessing", serde_json::to_string(&before).map_err(io)?),
            (
                "input",
                match input {
                    OnnxInput::Normalised => "normalised".to_owned(),
                    OnnxInput::Pixels => "pixels".to_owned(),
                },
            ),
        ];
        if !preprocessing.shuffle.is_none() {
            metadata.push(("shuffle", serde_json::to_string(&preprocessing.shuffle).map_err(io)?));
        }
        if let Some(temperature) = self.metadata.temperature {
            metadata.push(("temperature", temperature.to_string()));
        }
        if let Some(classes) = &self.metadata.classes {
            metadata.push(("classes", serde_json::to_string(classes).map_err(io)?));
        }
        Ok(metadata)
    }

    /// Adds the network's nodes, and tells the name of the output.
    fn graph(&self, graph: &mut Graph, input: OnnxInput) -> String {
        let config = &self.config;
        let (patch, width) = (config.patch_size as u64, config.hidden_dim);
        let mut x = "images".to_owned();
        let order = self.shuffle().raster(config.image_size, config.patch_size);
        if let Some(order) = order {
            let order: Vec<i64> = order.into_iter().map(|from| from as i64).collect();
            let (side, order) = (config.image_size as i64, graph.integers("shuffle.order", &order));
            let rows = graph.integers("shuffle.pixels", &[0, 3, -1]);
            x = graph.node("Reshape", &[&x, &rows], &[]);
            x = graph.node("Gather", &[&x, &order], &[Attribute::Int("axis", 2)]);
            let square = graph.integers("shuffle.square", &[0, 3, side, side]);
            x = graph.node("Reshape", &[&x, &square], &[]);
        }
        if input == OnnxInput::Pixels {
            let preprocessing = self.metadata.preprocessing.unwrap_or_default();
            let (mean, std) = (preprocessing.mean, preprocessing.std);
            let scale = std.map(|std| 1.0 / (255.0 * std)).to_vec();
            let shift = (0..3).map(|colour| -mean[colour] / std[colour]).collect();
            let scale = graph.constant("input.scale", &[1, 3, 1, 1], scale);
            let shift = graph.constant("input.shift", &[1, 3, 1, 1], shift);
            x = graph.node("Mul", &[&x, &scale], &[]);
            x = graph.node("Add", &[&x, &shift], &[]);
        }
        let num_heads = config.tokens.num_heads();
        let (stem, mlp) = match num_heads {
            None => ("stem", "mlp_channels"),
            Some(_) => ("patch_embed", "mlp"),
        };
        let bias = graph.tensor(self, &format!("{stem}.proj.bias"), None);
        let stem = graph.tensor(self, &format!("{stem}.proj.weight"), None);
        let sides = [patch, patch];
        let attributes =
            [Attribute::Ints("kernel_shape", &sides), Attribute::Ints("strides", &sides)];
        x = graph.node("Conv", &[&x, &stem, &bias], &attributes);
        // 0 keeps the batch, and the rest follows.
        let shape = graph.integers("tokens", &[0, width as i64, -1]);
        x = graph.node("Reshape", &[&x, &shape], &[]);
        x = graph.node("Transpose", &[&x], &[Attribute::Ints("perm", &[0, 2, 1])]);
        if num_heads.is_some() {
            if config.has_class_token() {
                let rows = graph.node("Shape", &[&x], &[Attribute::Int("end", 1)]);
                let one = graph.integers("one_token", &[1, 1]);
                let shape = graph.node("Concat", &[&rows, &one], &[Attribute::Int("axis", 0)]);
                let token = graph.tensor(self, "cls_token", None);
                let token = graph.node("Expand", &[&token, &shape], &[]);
                x = graph.node("Concat", &[&token, &x], &[Attribute::Int("axis", 1)]);
            }
            let positions = graph.tensor(self, "pos_embed", None);
            x = graph.node("Add", &[&x, &positions], &[]);
        }
        for block in 0..config.num_blocks {
            let name = |end: &str| format!("blocks.{block}.{end}");
            let normal = graph.layer_norm(self, &x, &name("norm1"));
            let mixed = match num_heads {
                None => graph.token_mixing(self, &normal, block),
                Some(num_heads) => graph.attention(self, &normal, block, num_heads),
            };
            x = graph.node("Add", &[&x, &mixed], &[]);
            let normal = graph.layer_norm(self, &x, &name("norm2"));
            let hidden = graph.dense(self, &normal, &name(&format!("{mlp}.fc1")));
            let hidden = graph.gelu(&hidden);
            let mixed = graph.dense(self, &hidden, &name(&format!("{mlp}.fc2")));
            x = graph.node("Add", &[&x, &mixed], &[]);
        }
        x = graph.layer_norm(self, &x, "norm");
        if config.has_class_token() {
            let first = graph.scalar_integer("first_token", 0);
            x = graph.node("Gather", &[&x, &first], &[Attribute::Int("axis", 1)]);
        } else {
            let mean = [Attribute::Ints("axes", &[1]), Attribute::Int("keepdims", 0)];
            x = graph.node("ReduceMean", &[&x], &mean);
        }
        let weight = graph.tensor(self, "head.weight", None);
        let bias = graph.tensor(self, "head.bias", None);
        graph.named("logits", "Gemm", &[&x, &weight, &bias], &[Attribute::Int("transB", 1)])
    }
}

/// A tensor, and the bytes before its values.
struct Initializer {
    name: String,
    head: Message,
    tensor: HostTensor,
}

impl Initializer {
    fn new(name: &str, tensor: HostTensor) -> Self {
        let dims = tensor.shape.iter().fold(Message::new(), |m, &size| m.number(1, size as u64));
        let bytes = tensor.data.len() * size_of::<f32>();
        let inside = dims.number(2, 1).text(8, name).announced(9, bytes);
        let head = Message::new().announced(5, inside.as_bytes().len() + bytes).and(inside);
        Self { name: name.to_owned(), head, tensor }
    }

    fn bytes(&self) -> usize {
        self.head.as_bytes().len() + self.tensor.data.len() * size_of::<f32>()
    }
}

/// An attribute of a node.
enum Attribute<'a> {
    Int(&'a str, u64),
    Ints(&'a str, &'a [u64]),
    Float(&'a str, f32),
}

impl Attribute<'_> {
    fn message(&self) -> Message {
        match self {
            Self::Int(name, value) => Message::new().text(1, name).number(3, *value).number(20, 2),
            Self::Ints(name, values) => {
                let message = Message::new().text(1, name);
                values.iter().fold(message, |m, value| m.number(8, *value)).number(20, 7)
            }
            Self::Float(name, value) => Message::new().text(1, name).float(2, *value).number(20, 1),
        }
    }
}

/// The nodes and initializers of a graph, in its fields 1 and 5.
struct Graph {
    nodes: Message,
    count: usize,
    initializers: Vec<Initializer>,
    gelu: Gelu,
}

impl Graph {
    /// Adds a node, and tells the name of its output.
    fn node(&mut self, operator: &str, inputs: &[&str], attributes: &[Attribute<'_>]) -> String {
        let name = format!("{}_{}", operator.to_lowercase(), self.count);
        self.named(&name, operator, inputs, attributes)
    }

    fn named(
        &mut self,
        name: &str,
        operator: &str,
        inputs: &[&str],
        attributes: &[Attribute<'_>],
    ) -> String {
        self.count += 1;
        let node = inputs.iter().fold(Message::new(), |node, input| node.text(1, input));
        let node = node.text(2, name).text(3, name).text(4, operator);
        let node = attributes.iter().fold(node, |node, a| node.message(5, a.message()));
        self.nodes = std::mem::take(&mut self.nodes).message(1, node);
        name.to_owned()
    }

    fn constant(&mut self, name: &str, shape: &[usize], data: Vec<f32>) -> String {
        let tensor = HostTensor { shape: shape.to_vec(), data };
        self.initializers.push(Initializer::new(name, tensor));
        name.to_owned()
    }

    /// A number that is written once, however often it is used.
    fn scalar(&mut self, value: f32) -> String {
        let name = format!("constant_{value}");
        if !self.initializers.iter().any(|known| known.name == name) {
            self.constant(&name, &[], vec![value]);
        }
        name
    }

    fn integers(&mut self, name: &str, values: &[i64]) -> String {
        self.shaped_integers(Message::new().number(1, values.len() as u64), name, values)
    }

    fn scalar_integer(&mut self, name: &str, value: i64) -> String {
        self.shaped_integers(Message::new(), name, &[value])
    }

    fn shaped_integers(&mut self, dims: Message, name: &str, values: &[i64]) -> String {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let tensor = dims.number(2, 7).text(8, name).bytes(9, &bytes);
        self.nodes = std::mem::take(&mut self.nodes).message(5, tensor);
        name.to_owned()
    }

    /// A tensor of the weights, with its axes permuted where `axes` says so.
    fn tensor(&mut self, weights: &Weights, name: &str, axes: Option<&[usize]>) -> String {
        let tensor = found(weights, name).clone();
        let tensor = if let Some(axes) = axes { tensor.permuted(axes) } else { tensor };
        self.initializers.push(Initializer::new(name, tensor));
        name.to_owned()
    }

    /// A vector as a column: token mixing adds a number to every channel of a token.
    fn column(&mut self, weights: &Weights, name: &str) -> String {
        let data = found(weights, name).data.clone();
        self.constant(name, &[data.len(), 1], data)
    }

    fn layer_norm(&mut self, weights: &Weights, x: &str, name: &str) -> String {
        let scale = self.tensor(weights, &format!("{name}.weight"), None);
        let shift = self.tensor(weights, &format!("{name}.bias"), None);
        let epsilon = Attribute::Float("epsilon", EPSILON as f32);
        self.node("LayerNormalization", &[x, &scale, &shift], &[epsilon])
    }

    fn dense(&mut self, weights: &Weights, x: &str, name: &str) -> String {
        let weight = self.tensor(weights, &format!("{name}.weight"), Some(&[1, 0]));
        let bias = self.tensor(weights, &format!("{name}.bias"), None);
        let product = self.node("MatMul", &[x, &weight], &[]);
        self.node("Add", &[&product, &bias], &[])
    }

    /// Token mixing of what was normalised. The weights multiply from the left.
    fn token_mixing(&mut self, weights: &Weights, normal: &str, block: usize) -> String {
        let name = |end: &str| format!("blocks.{block}.mlp_tokens.{end}");
        let weight = self.tensor(weights, &name("fc1.weight"), None);
        let bias = self.column(weights, &name("fc1.bias"));
        let hidden = self.node("MatMul", &[&weight, normal], &[]);
        let hidden = self.node("Add", &[&hidden, &bias], &[]);
        let hidden = self.gelu(&hidden);
        let weight = self.tensor(weights, &name("fc2.weight"), None);
        let bias = self.column(weights, &name("fc2.bias"));
        let mixed = self.node("MatMul", &[&weight, &hidden], &[]);
        self.node("Add", &[&mixed, &bias], &[])
    }

    /// Self-attention of what was normalised.
    fn attention(
        &mut self,
        weights: &Weights,
        normal: &str,
        block: usize,
        num_heads: usize,
    ) -> String {
        let name = |end: &str| format!("blocks.{block}.attn.{end}");
        let width = weights.config.hidden_dim;
        let size = width / num_heads.max(1);
        let heads = self.integers(&name("heads"), &[0, -1, num_heads as i64, size as i64]);
        // The rows of the fused product, each as a product of its own.
        let kernel = found(weights, &name("qkv.weight")).data.clone();
        let bias = found(weights, &name("qkv.bias")).data.clone();
        let [query, key, value] =
            [("q", 0, [0, 2, 1, 3]), ("k", 1, [0, 2, 3, 1]), ("v", 2, [0, 2, 1, 3])].map(
                |(part, i, axes)| {
                    let rows = kernel[i * width * width..][..width * width].to_vec();
                    let rows =
                        HostTensor { shape: vec![width, width], data: rows }.permuted(&[1, 0]);
                    let weight =
                        self.constant(&name(&format!("{part}.weight")), &[width, width], rows.data);
                    let bias = bias[i * width..][..width].to_vec();
                    let bias = self.constant(&name(&format!("{part}.bias")), &[width], bias);
                    let x = self.node("MatMul", &[normal, &weight], &[]);
                    let x = self.node("Add", &[&x, &bias], &[]);
                    let x = self.node("Reshape", &[&x, &heads], &[]);
                    self.node("Transpose", &[&x], &[Attribute::Ints("perm", &axes)])
                },
            );
        let scale = self.scalar((1.0 / (size as f64).sqrt()) as f32);
        let scores = self.node("MatMul", &[&query, &key], &[]);
        let scores = self.node("Mul", &[&scores, &scale], &[]);
        let shares = self.node("Softmax", &[&scores], &[Attribute::Int("axis", 3)]);
        let mixed = self.node("MatMul", &[&shares, &value], &[]);
        let mixed = self.node("Transpose", &[&mixed], &[Attribute::Ints("perm", &[0, 2, 1, 3])]);
        let joined = self.integers(&name("joined"), &[0, -1, width as i64]);
        let mixed = self.node("Reshape", &[&mixed, &joined], &[]);
        self.dense(weights, &mixed, &name("proj"))
    }

    fn gelu(&mut self, x: &str) -> String {
        let (half, one) = (self.scalar(0.5), self.scalar(1.0));
        let inner = match self.gelu {
            Gelu::Erf => {
                let factor = self.scalar(std::f32::consts::FRAC_1_SQRT_2);
                let scaled = self.node("Mul", &[x, &factor], &[]);
                self.node("Erf", &[&scaled], &[])
            }
            Gelu::Tanh => {
                let factor = self.scalar(0.044_715);
                let root = self.scalar((2.0 / std::f32::consts::PI).sqrt());
                let square = self.node("Mul", &[x, x], &[]);
                let cube = self.node("Mul", &[&square, x], &[]);
                let cube = self.node("Mul", &[&cube, &factor], &[]);
                let sum = self.node("Add", &[x, &cube], &[]);
                let scaled = self.node("Mul", &[&sum, &root], &[]);
                self.node("Tanh", &[&scaled], &[])
            }
        };
        let sum = self.node("Add", &[&inner, &one], &[]);
        let product = self.node("Mul", &[x, &sum], &[]);
        self.node("Mul", &[&product, &half], &[])
    }
}

/// A tensor of weights that were found whole.
fn found<'a>(weights: &'a Weights, name: &str) -> &'a HostTensor {
    match weights.tensors.get(name) {
        Some(tensor) => tensor,
        None => unreachable!("`{name}` is in every whole set of weights"),
    }
}

/// A float tensor by name; an axis is a size, or the name of one that is free.
fn value_info(name: &str, axes: &[Result<usize, &str>]) -> Message {
    let shape = axes.iter().fold(Message::new(), |shape, axis| {
        let dim = match axis {
            Ok(size) => Message::new().number(1, *size as u64),
            Err(free) => Message::new().text(2, free),
        };
        shape.message(1, dim)
    });
    let tensor = Message::new().number(1, 1).message(2, shape);
    Message::new().text(1, name).message(2, Message::new().message(1, tensor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixer::variants::Variant;

    #[test]
    fn what_protobuf_cannot_hold_is_refused_before_anything_is_written() {
        // H/14 after an exact change to 448 px: nobody has to hold its 2.35 GB here.
        let mut config = Variant::parse("H/14").unwrap().config(448, 1000, Gelu::Tanh);
        config.tokens = crate::mixer::TokenLayer::Mlp { tokens_mlp_dim: 4 * 640 };
        let size = weights_bytes(&config);
        assert!(size > 2_340_000_000, "{size}");
        let weights = Weights { config, tensors: Default::default(), metadata: Default::default() };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        let error = weights.write_onnx(&path, OnnxInput::Normalised).unwrap_err();
        assert!(matches!(error, ModelError::TooLargeForOnnx { bytes } if bytes == size));
        let line = error.to_string();
        assert!(line.contains("MiB") && line.contains("2048") && !line.contains('\n'), "{line}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

        assert!(check_size(MAX_BYTES).is_ok() && check_size(MAX_BYTES + 1).is_err());
        for name in ["S/32", "L/16", "H/14"] {
            let config = Variant::parse(name).unwrap().config(224, 21843, Gelu::Tanh);
            assert!(check_size(weights_bytes(&config)).is_ok(), "{name}");
        }
    }
}
