//! mixer-train
