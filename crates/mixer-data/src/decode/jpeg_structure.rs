//! The markers of a JPEG, walked over without decoding: whether it is whole.

/// `true` where the markers lead to an end-of-image marker.
///
/// Entropy-coded data cannot contain one (a data byte `ff` is followed by `00`), and the segments of the
/// header, where a thumbnail has its own, are stepped over by their lengths.
pub(crate) fn reaches_end(bytes: &[u8]) -> bool {
    const PROGRESSIVE_FRAME: u8 = 0xc2;
    const END_OF_IMAGE: u8 = 0xd9;
    const START_OF_SCAN: u8 = 0xda;

    // Just behind the start-of-image marker.
    let mut at = 2;
    let (mut in_scan, mut is_progressive) = (false, false);
    while let Some((code, after)) = next_marker(bytes, at, in_scan) {
        at = after;
        match code {
            END_OF_IMAGE => return true,
            // Markers without a segment: TEM, restarts and start of image.
            0x01 | 0xd0..=0xd8 => continue,
            PROGRESSIVE_FRAME => is_progressive = true,
            START_OF_SCAN => {
                in_scan = true;
                // The usual case, answered without a walk through the scan: nothing but a marker
                // can look like one from here on.
                if !is_progressive && bytes.ends_with(&[0xff, END_OF_IMAGE]) {
                    return true;
                }
            }
            _ => {}
        }
        let Some(length) = bytes.get(at..at + 2) else {
            return false;
        };
        at += usize::from(u16::from_be_bytes([length[0], length[1]]));
    }
    false
}

/// The code of the next marker from `at` on, and where its segment starts.
///
/// A marker is `ff`, any number of fill bytes `ff`, and a code. Stray bytes before it are stepped
/// over, as libjpeg does; in a scan these are the data, with stuffed bytes and restart markers.
pub(crate) fn next_marker(bytes: &[u8], at: usize, in_scan: bool) -> Option<(u8, usize)> {
    let pairs = bytes.get(at..)?.windows(2);
    let is_marker = |pair: &[u8]| {
        pair[0] == 0xff
            && pair[1] != 0xff
            && pair[1] != 0x00
            && !(in_scan && (0xd0..=0xd7).contains(&pair[1]))
    };
    let offset = pairs.into_iter().position(is_marker)?;
    Some((bytes[at + offset + 1], at + offset + 2))
}
