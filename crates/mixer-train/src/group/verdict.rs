//! What ranks tell each other between their own work and what they do together: whether to go on, and what
//! only one of them knows.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::group::Group;
use crate::halt::{Halt, Stop};

/// The word of a rank.
#[derive(Debug, Serialize, Deserialize)]
struct Word<P> {
    end: Option<End>,
    news: P,
}

/// A reason to end for all.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum End {
    Stop(Stop),
    Failed { code: u8 },
}

/// The result of this rank's own work, where all have one, and the news of every rank in order. Where one
/// has failed, all end: it with its error, the others with [`TrainError::Elsewhere`]. Where one was asked to
/// stop, all stop.
///
/// # Errors
/// The halt that is the same for all.
pub(crate) fn agree<T, P: Serialize + DeserializeOwned>(
    group: &dyn Group,
    own: Result<T, Halt>,
    news: P,
) -> Result<(T, Vec<P>), Halt> {
    if group.size() == 1 {
        return own.map(|own| (own, vec![news]));
    }
    let end = match &own {
        Ok(_) => None,
        Err(Halt::Stop(stop)) => Some(End::Stop(*stop)),
        Err(Halt::Failed(error)) => Some(End::Failed { code: error.exit_code() }),
    };
    let word = serde_json::to_vec(&Word { end, news }).map_err(in_words)?;
    let mut words = Vec::with_capacity(group.size());
    for word in group.gather(&word) {
        words.push(serde_json::from_slice::<Word<P>>(&word).map_err(in_words)?);
    }
    let failed = words.iter().enumerate().find_map(|(rank, word)| match word.end {
        Some(End::Failed { code }) => Some((rank, code)),
        _ => None,
    });
    if let Some((rank, code)) = failed {
        return match own {
            Err(Halt::Failed(error)) => Err(Halt::Failed(error)),
            _ => Err(TrainError::Elsewhere { rank, host: group.host(rank), code }.into()),
        };
    }
    let stop = words.iter().find_map(|word| match word.end {
        Some(End::Stop(stop)) => Some(stop),
        _ => None,
    });
    match (stop, own) {
        (Some(stop), _) => Err(Halt::Stop(stop)),
        (None, Ok(own)) => Ok((own, words.into_iter().map(|word| word.news).collect())),
        (None, Err(halt)) => Err(halt),
    }
}

/// The result of this rank's own work, where all have one.
///
/// # Errors
/// As of [`agree`].
pub(crate) fn all<T>(group: &dyn Group, own: Result<T, TrainError>) -> Result<T, TrainError> {
    match agree(group, own.map_err(Halt::Failed), ()) {
        Ok((own, _)) => Ok(own),
        Err(Halt::Failed(error)) => Err(error),
        Err(Halt::Stop(_)) => unreachable!("nobody was asked to stop"),
    }
}

fn in_words(error: serde_json::Error) -> TrainError {
    TrainError::Io(std::io::Error::other(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::threads::together;

    #[test]
    fn all_go_on_or_end_alike() {
        let told = together(3, |group| {
            let own = Ok(10 * group.rank());
            agree(group, own, format!("news of {}", group.rank())).unwrap()
        });
        for (rank, (own, news)) in told.iter().enumerate() {
            assert_eq!(*own, 10 * rank);
            assert_eq!(news, &["news of 0", "news of 1", "news of 2"]);
        }
        // A failure comes before a stop, and the rank that failed keeps its error.
        let ends = together(3, |group| {
            let own: Result<(), Halt> = match group.rank() {
                0 => Err(Halt::Stop(Stop::TimeLimit)),
                2 => Err(TrainError::data_mismatch("too dark").into()),
                _ => Ok(()),
            };
            match agree(group, own, ()) {
                Err(Halt::Failed(error)) => (error.to_string(), error.exit_code()),
                other => panic!("{other:?}"),
            }
        });
        assert_eq!(ends[2], ("too dark".to_owned(), 4));
        assert_eq!(ends[0], ("rank 2 on here has ended the run".to_owned(), 4));
        assert_eq!(ends[0], ends[1]);
        let stops = together(2, |group| {
            let own = if group.rank() == 1 { Err(Halt::Stop(Stop::Interrupted)) } else { Ok(()) };
            matches!(agree(group, own, ()), Err(Halt::Stop(Stop::Interrupted)))
        });
        assert_eq!(stops, [true, true]);
    }
}
