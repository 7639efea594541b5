//! The rule for updates that are not finite. Apart from the file that describes such an update, because
//! configurations name it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The fate of a run whose update has a loss or gradient norm that is not finite. The update is never
/// applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum OnDivergence {
    /// Stop, and keep what is needed to replay it.
    #[default]
    Stop,
    /// Go on with the next batch.
    Skip {
        /// Updates of the run that may be left out before it stops after all.
        at_most: u64,
    },
}
