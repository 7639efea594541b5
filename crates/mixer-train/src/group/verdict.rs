//! Words that ranks say to each other between their own work and what they do together: whether to go on, and what
//! only one of them knows.

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::group::Group;
use crate::halt::{Halt, Stop};

/// The word of a rank. One that ends has no news, so that it is understood wherever the others agree: a rank
/// that has failed by itself says so at whatever they come to next.
#[derive(Debug, Serialize, Deserialize)]
enum Word<P> {
    News(P),
    End(End),
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
    let word = match &own {
        Ok(_) => Word::News(news),
        Err(Halt::Stop(stop)) => Word::End(End::Stop(*stop)),
        Err(Halt::Failed(error)) => Word::End(End::Failed { code: error.exit_code() }),
    };
    let word = serde_json::to_vec(&word).map_err(in_words)?;
    let words = group.gather(&word);
    let (mut stop, mut failed) = (None, None);
    for (rank, word) in words.iter().enumerate() {
        // The news may be of another kind where somebody has failed.
        match serde_json::from_slice::<Word<IgnoredAny>>(word).map_err(in_words)? {
            Word::News(_) => {}
            Word::End(End::Stop(why)) => stop = stop.or(Some(why)),
            Word::End(End::Failed { code }) => failed = failed.or(Some((rank, code))),
        }
    }
    if let Some((rank, code)) = failed {
        return match own {
            Err(Halt::Failed(error)) => Err(Halt::Failed(error)),
            _ => Err(TrainError::Elsewhere { rank, host: group.host(rank), code }.into()),
        };
    }
    if let Some(stop) = stop {
        return Err(Halt::Stop(stop));
    }
    let own = own?;
    let news = words.iter().filter_map(|word| match serde_json::from_slice(word) {
        Ok(Word::News(news)) => Some(Ok(news)),
        Ok(Word::End(_)) => None,
        Err(error) => Some(Err(in_words(error))),
    });
    Ok((own, news.collect::<Result<_, _>>()?))
}

/// The result of this rank's own work, where all have one.
///
/// # Errors
/// As of [`agree`].
pub(crate) fn all<T>(group: &dyn Group, own: Result<T, TrainError>) -> Result<T, TrainError> {
    tell(group, own, ()).map(|(own, _)| own)
}

/// The same, with the news of every rank in order.
///
/// # Errors
/// As of [`agree`].
pub(crate) fn tell<T, P: Serialize + DeserializeOwned>(
    group: &dyn Group,
    own: Result<T, TrainError>,
    news: P,
) -> Result<(T, Vec<P>), TrainError> {
    agree(group, own.map_err(Halt::Failed), news).map_err(|halt| match halt {
        Halt::Failed(error) => error,
        Halt::Stop(_) => unreachable!("nobody was asked to stop"),
    })
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
        // One is at another place than the others, who have news there.
        let ends = together(3, |group| {
            if group.rank() == 0 {
                return all(group, Err::<(), _>(TrainError::usage("no room")))
                    .unwrap_err()
                    .exit_code();
            }
            tell(group, Ok(()), vec![(1_u64, "picture".to_owned())]).unwrap_err().exit_code()
        });
        assert_eq!(ends, [2, 2, 2]);
        let stops = together(2, |group| {
            let own = if group.rank() == 1 { Err(Halt::Stop(Stop::Interrupted)) } else { Ok(()) };
            matches!(agree(group, own, ()), Err(Halt::Stop(Stop::Interrupted)))
        });
        assert_eq!(stops, [true, true]);
    }
}
