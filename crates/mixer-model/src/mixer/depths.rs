//! The numbers of blocks by stage of a network whose grid is halved between stages.

use serde::{Deserialize, Serialize};

use crate::error::ModelError;

/// Most stages.
pub(crate) const MAX_STAGES: usize = 4;

/// Blocks by stage, at least one in each of one to four stages. In files a list, `[3, 4, 6, 3]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<usize>", into = "Vec<usize>")]
pub struct Depths(
    /// 0 behind the last stage.
    [usize; MAX_STAGES],
);

impl Depths {
    /// The four stages of a published network.
    pub(super) const fn of(depths: [usize; MAX_STAGES]) -> Self {
        Self(depths)
    }

    /// Stages of so many blocks.
    ///
    /// # Errors
    /// [`ModelError::Stages`] for none, for more than four, and for one without a block.
    pub fn new(depths: &[usize]) -> Result<Self, ModelError> {
        let mut stages = [0; MAX_STAGES];
        if !(1..=MAX_STAGES).contains(&depths.len()) || depths.contains(&0) {
            return Err(ModelError::Stages { found: depths.to_vec() });
        }
        stages[..depths.len()].copy_from_slice(depths);
        Ok(Self(stages))
    }

    /// Blocks of each stage, from the picture to the head.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().take_while(|depth| *depth > 0)
    }

    /// Number of stages.
    #[must_use]
    pub fn num_stages(self) -> usize {
        self.iter().count()
    }

    /// Blocks of all stages.
    #[must_use]
    pub fn num_blocks(self) -> usize {
        self.iter().fold(0, usize::saturating_add)
    }
}

impl From<Depths> for Vec<usize> {
    fn from(depths: Depths) -> Self {
        depths.iter().collect()
    }
}

impl TryFrom<Vec<usize>> for Depths {
    type Error = ModelError;

    fn try_from(depths: Vec<usize>) -> Result<Self, ModelError> {
        Self::new(&depths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_to_four_stages_are_a_list_in_files() {
        for text in ["[3,4,6,3]", "[2,1,1]", "[1]"] {
            let depths: Depths = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&depths).unwrap(), text);
        }
        assert_eq!(Depths::new(&[3, 4, 6, 3]).unwrap().num_blocks(), 16);
        for text in ["[]", "[0]", "[1,0,1]", "[1,1,1,1,1]"] {
            let error = serde_json::from_str::<Depths>(text).unwrap_err().to_string();
            assert!(error.contains("one to four"), "{error}");
        }
    }
}
