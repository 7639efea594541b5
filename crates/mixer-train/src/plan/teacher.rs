//! A teacher beside a student: what has to agree.

use std::collections::BTreeSet;

use mixer_model::Weights;

use crate::device::DeviceEntry;
use crate::error::TrainError;
use crate::plan::facts::InitFacts;
use crate::plan::run_plan::RunPlan;
use crate::show::shell;
use crate::update::teacher::{Student, Teacher};

impl RunPlan {
    /// The same run with a teacher that was found; without one, the same.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a teacher of other classes, of another resolution, or of pictures in another order.
    pub fn with_teacher(mut self, found: Option<&InitFacts>) -> Result<Self, TrainError> {
        let Some(found) = found.filter(|_| self.train.teacher.is_some()) else { return Ok(self) };
        let (network, classes) = (&self.model.network, &self.facts.classes);
        let refused = |message: String| TrainError::config(format!("`train.teacher`: {message}"));
        let size = found.config.image_size;
        if size != network.image_size {
            return Err(refused(format!(
                "the teacher takes pictures of {size} px, the student of {} px",
                network.image_size
            ))
            .with_hint(format!(
                "`mixer weights resize {} --image-size {} --out FILE` writes the teacher for the student's pictures",
                self.train.teacher.as_ref().map_or(String::new(), |t| shell::word(&t.weights)),
                network.image_size
            )));
        }
        if found.config.num_classes != classes.len() {
            return Err(refused(format!(
                "the teacher has {} classes, the data {}",
                found.config.num_classes,
                classes.len()
            )));
        }
        if let Some(names) = &found.metadata.classes {
            let (of_teacher, of_data): (BTreeSet<_>, BTreeSet<_>) =
                (names.iter().collect(), classes.iter().collect());
            if let Some(missing) = of_data.difference(&of_teacher).next() {
                return Err(refused(format!(
                    "the teacher does not know class `{missing}` of the data"
                ))
                .with_hint("a teacher has the classes of the data, in whatever order"));
            }
        }
        let shuffle = found.metadata.preprocessing.unwrap_or_default().shuffle;
        if shuffle != self.data.shuffle {
            return Err(refused(format!(
                "`data.shuffle` is {}, but the teacher was trained with {shuffle}",
                self.data.shuffle
            )));
        }
        self.teacher = Some(found.without_origin());
        Ok(self)
    }

    /// The teacher's network on a device; none in a run without.
    pub(crate) fn open_teacher(
        &self,
        weights: Weights,
        device: &DeviceEntry,
    ) -> Result<Option<Teacher>, TrainError> {
        let Some(rule) = &self.train.teacher else { return Ok(None) };
        let student = Student {
            network: &self.model.network,
            preprocessing: &self.preprocessing(),
            classes: &self.facts.classes,
        };
        Teacher::new(weights, rule, student, &device.device).map(Some)
    }
}
