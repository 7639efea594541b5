//! Weights as other programs take them whole: a folder for timm and the hub, and a network in ONNX.

pub(super) mod onnx;
mod timm_folder;
