//! Dance tunes in ABC notation (abcnotation.com, standard 2.1).
//!
//! A tune has header fields and two or three parts of eight bars, each part repeated:
//!
//! ```text
//! X:7
//! T:The Silver Fiddle
//! R:jig
//! M:6/8
//! L:1/8
//! K:G
//! |:GAB BAG|d2B dBG|…|
//! ```
//!
//! A part is two phrases of four bars: the second begins like the first and ends on the tonic. Bars follow a chord progression:
//! strong beats take notes of the chord, and the notes between move mostly by step. Every bar adds up to its meter. Lengths count
//! eighth notes. Pitches count steps of the scale from middle C (0 is `C`, 7 is `c`); the key signature gives the accidentals.

use std::fmt::Write;

use super::Rng;

/// Tunes are added until the text has this many bytes.
const MIN_BYTES: usize = 250_000;

/// Lowest and highest pitch: `A,` and `c'`.
const RANGE: std::ops::RangeInclusive<i32> = -2..=14;

struct Rhythm {
    name: &'static str,
    meter: &'static str,
    /// Beats of a bar, and eighths of a beat.
    beats: usize,
    beat: usize,
    /// How a beat divides, with weights. `-1` stands for a dotted pair `a>b`, `-3` for a triplet of eighths in the time of two.
    divisions: &'static [(usize, &'static [i32])],
}

const RHYTHMS: [(usize, Rhythm); 7] = [
    (28, Rhythm { name: "reel", meter: "4/4", beats: 2, beat: 4, divisions: REEL }),
    (26, Rhythm { name: "jig", meter: "6/8", beats: 2, beat: 3, divisions: JIG }),
    (12, Rhythm { name: "hornpipe", meter: "4/4", beats: 2, beat: 4, divisions: HORNPIPE }),
    (10, Rhythm { name: "polka", meter: "2/4", beats: 2, beat: 2, divisions: POLKA }),
    (10, Rhythm { name: "waltz", meter: "3/4", beats: 3, beat: 2, divisions: WALTZ }),
    (8, Rhythm { name: "slip jig", meter: "9/8", beats: 3, beat: 3, divisions: JIG }),
    (6, Rhythm { name: "march", meter: "4/4", beats: 2, beat: 4, divisions: MARCH }),
];

const REEL: &[(usize, &[i32])] =
    &[(60, &[1, 1, 1, 1]), (16, &[2, 1, 1]), (8, &[1, 1, 2]), (5, &[3, 1]), (6, &[-3, 1, 1]), (3, &[2, 2])];
const JIG: &[(usize, &[i32])] = &[(62, &[1, 1, 1]), (26, &[2, 1]), (8, &[3]), (4, &[1, 2])];
const HORNPIPE: &[(usize, &[i32])] = &[(60, &[-1, -1]), (16, &[2, -1]), (10, &[-3, -1]), (8, &[2, 2]), (6, &[-1, 2])];
const POLKA: &[(usize, &[i32])] = &[(60, &[1, 1]), (25, &[2]), (15, &[-1])];
const WALTZ: &[(usize, &[i32])] = &[(50, &[2]), (45, &[1, 1]), (5, &[-3])];
const MARCH: &[(usize, &[i32])] = &[(35, &[2, 1, 1]), (30, &[2, 2]), (20, &[-1, 2]), (15, &[1, 1, 1, 1])];

/// Keys, with the pitch of the tonic and whether the chords are minor.
const KEYS: [(usize, (&str, i32, bool)); 14] = [
    (22, ("D", 1, false)),
    (22, ("G", 4, false)),
    (12, ("A", 5, false)),
    (6, ("C", 0, false)),
    (4, ("F", 3, false)),
    (8, ("Em", 2, true)),
    (6, ("Am", 5, true)),
    (4, ("Bm", 6, true)),
    (3, ("Dm", 1, true)),
    (2, ("Gm", 4, true)),
    (5, ("Ador", 5, true)),
    (5, ("Edor", 2, true)),
    (4, ("Amix", 5, false)),
    (4, ("Dmix", 1, false)),
];

/// Roots of the chords of four bars, as steps above the tonic: open endings, then closed ones.
const OPEN_MAJOR: &[[i32; 4]] = &[[0, 0, 3, 4], [0, 3, 0, 4], [0, 5, 3, 4], [0, 0, 0, 4], [0, 4, 0, 4]];
const CLOSED_MAJOR: &[[i32; 4]] = &[[0, 3, 4, 0], [0, 0, 4, 0], [0, 5, 4, 0], [3, 0, 4, 0]];
const OPEN_MINOR: &[[i32; 4]] = &[[0, 0, 6, 6], [0, 6, 0, 6], [0, 0, 0, 6], [0, 2, 6, 4]];
const CLOSED_MINOR: &[[i32; 4]] = &[[0, 6, 6, 0], [0, 0, 6, 0], [0, 2, 6, 0], [0, 6, 4, 0]];

const NAMES: [&str; 40] = [
    "Anna", "Biddy", "Brendan", "Cathleen", "Ciaran", "Colm", "Daniel", "Dermot", "Eileen", "Eoin", "Fergus", "Finn",
    "Gráinne", "Hugh", "Ita", "James", "Johnny", "Kate", "Kitty", "Liam", "Maeve", "Maggie", "Malachy", "Martin",
    "Mary", "Michael", "Molly", "Nancy", "Nora", "Owen", "Paddy", "Peggy", "Rory", "Sally", "Sean", "Siobhán", "Tim",
    "Tom", "Una", "Winnie",
];
const ADJECTIVES: [&str; 32] = [
    "Bonny",
    "Bright",
    "Broken",
    "Crooked",
    "Dark",
    "Dusty",
    "Early",
    "Fair",
    "Fat",
    "Flowing",
    "Foggy",
    "Frosty",
    "Gallant",
    "Golden",
    "Green",
    "Hasty",
    "Hidden",
    "Humble",
    "Idle",
    "Kind",
    "Lame",
    "Lonesome",
    "Merry",
    "Misty",
    "Old",
    "Rambling",
    "Red",
    "Roving",
    "Silver",
    "Sleepy",
    "Wandering",
    "Wild",
];
const NOUNS: [&str; 48] = [
    "Anvil",
    "Apron",
    "Blackbird",
    "Bonnet",
    "Bridge",
    "Bride",
    "Candle",
    "Carpenter",
    "Churn",
    "Cobbler",
    "Cuckoo",
    "Drover",
    "Ferry",
    "Fiddle",
    "Fisherman",
    "Garden",
    "Goose",
    "Harbour",
    "Hare",
    "Harvest",
    "Hearth",
    "Heather",
    "Kettle",
    "Lantern",
    "Lark",
    "Mason",
    "Meadow",
    "Mill",
    "Miller",
    "Moorhen",
    "Orchard",
    "Otter",
    "Piper",
    "Ploughman",
    "Primrose",
    "Rambler",
    "River",
    "Road",
    "Rose",
    "Sailor",
    "Shepherd",
    "Spinning Wheel",
    "Stile",
    "Strand",
    "Thrush",
    "Tinker",
    "Weaver",
    "Wren",
];
const PLACES: [&str; 24] = [
    "Antrim",
    "Ballina",
    "Bantry",
    "Clare",
    "Cork",
    "Dingle",
    "Donegal",
    "Ennis",
    "Fermanagh",
    "Galway",
    "Kenmare",
    "Kerry",
    "Kilkenny",
    "Leitrim",
    "Limerick",
    "Mayo",
    "Miltown",
    "Roscommon",
    "Sligo",
    "Tipperary",
    "Tralee",
    "Tulla",
    "Westport",
    "Wexford",
];

/// About 250 kB of tunes.
pub fn abc(seed: u64) -> String {
    let mut text = String::with_capacity(MIN_BYTES + 1024);
    let mut number = 1;
    while text.len() < MIN_BYTES {
        Tune::new(seed, number).write(number, &mut text);
        number += 1;
    }
    text
}

struct Tune {
    rng: Rng,
    rhythm: &'static Rhythm,
    key: &'static str,
    tonic: i32,
    is_minor: bool,
    /// The current pitch of the melody.
    pitch: i32,
}

/// The beats of a bar: for each, its division and pitches.
type Bar = Vec<(&'static [i32], Vec<i32>)>;

impl Tune {
    fn new(seed: u64, number: u64) -> Tune {
        static WEIGHTED: &[(usize, Rhythm)] = &RHYTHMS;
        let mut rng = Rng::new(seed, number);
        let rhythm = rng.pick_weighted(WEIGHTED);
        let (key, tonic, is_minor) = *rng.pick_weighted(&KEYS);
        Tune { rng, rhythm, key, tonic, is_minor, pitch: tonic }
    }

    fn write(&mut self, number: u64, text: &mut String) {
        let title = self.title();
        let (rhythm, key) = (self.rhythm, self.key);
        // Writing to a string cannot fail.
        let _ = write!(text, "X:{number}\nT:{title}\nR:{}\nM:{}\nL:1/8\nK:{key}\n", rhythm.name, rhythm.meter);
        let parts = if self.rng.chance(15) { 3 } else { 2 };
        for part in 0..parts {
            // Later parts are higher.
            self.pitch = self.tonic + [0, 7, 4][part];
            let bars = self.part();
            text.push_str("|:");
            for (index, bar) in bars.iter().enumerate() {
                write_bar(bar, text);
                text.push_str(match index {
                    3 => "|\n|",
                    7 => ":|\n",
                    _ => "|",
                });
            }
        }
        text.push('\n');
    }

    fn title(&mut self) -> String {
        let rng = &mut self.rng;
        match rng.below(6) {
            0 => format!("The {} {}", rng.pick(&ADJECTIVES), rng.pick(&NOUNS)),
            1 => format!("{}'s {}", rng.pick(&NAMES), rng.pick(&NOUNS)),
            2 => format!("The {} of {}", rng.pick(&NOUNS), rng.pick(&PLACES)),
            3 => format!("{} {}", rng.pick(&ADJECTIVES), rng.pick(&NAMES)),
            4 => format!("The {} and the {}", rng.pick(&NOUNS), rng.pick(&NOUNS)),
            _ => format!("{}'s {} {}", rng.pick(&NAMES), rng.pick(&ADJECTIVES), rng.pick(&NOUNS)),
        }
    }

    /// Eight bars: an open phrase, then one that begins like it and closes.
    fn part(&mut self) -> Vec<Bar> {
        let (open, closed) = if self.is_minor { (OPEN_MINOR, CLOSED_MINOR) } else { (OPEN_MAJOR, CLOSED_MAJOR) };
        let (open, closed) = (*self.rng.pick(open), *self.rng.pick(closed));
        let mut bars: Vec<Bar> = Vec::with_capacity(8);
        for (index, root) in open.into_iter().enumerate() {
            // The third bar often varies the first.
            let bar = if index == 2 && self.rng.chance(50) { self.varied(&bars[0]) } else { self.bar(root) };
            bars.push(bar);
        }
        for index in 0..2 {
            let bar = if self.rng.chance(70) { bars[index].clone() } else { self.varied(&bars[index]) };
            bars.push(bar);
        }
        bars.push(self.bar(closed[2]));
        bars.push(self.closing_bar());
        bars
    }

    fn bar(&mut self, root: i32) -> Bar {
        (0..self.rhythm.beats).map(|_| self.beat(root)).collect()
    }

    /// A beat on a chord.
    fn beat(&mut self, root: i32) -> (&'static [i32], Vec<i32>) {
        let division = *self.rng.pick_weighted(self.rhythm.divisions);
        let notes: usize = division.iter().map(|length| notes_of(*length)).sum();
        let mut pitches = Vec::with_capacity(notes);
        self.pitch = self.chord_note(root, self.pitch);
        // Most steps keep the direction; some turn.
        let mut direction = if self.rng.chance(50) { 1 } else { -1 };
        for _ in 0..notes {
            pitches.push(self.pitch);
            let step = match self.rng.below(10) {
                0..=5 => direction,
                6 | 7 => {
                    direction = -direction;
                    direction
                }
                8 => 2 * direction,
                _ => 0,
            };
            self.pitch = (self.pitch + step).clamp(*RANGE.start(), *RANGE.end());
        }
        (division, pitches)
    }

    /// The note of a triad nearest to `pitch`, sometimes the next one.
    fn chord_note(&mut self, root: i32, pitch: i32) -> i32 {
        let is_chord_note = |pitch: &i32| [0, 2, 4].contains(&(pitch - self.tonic - root).rem_euclid(7));
        let upward = self.rng.chance(50);
        let mut near: Vec<i32> = RANGE.filter(is_chord_note).collect();
        near.sort_by_key(|note| ((note - pitch).abs(), (*note > pitch) != upward));
        near[usize::from(self.rng.chance(25))]
    }

    /// The same bar with another last beat.
    fn varied(&mut self, bar: &Bar) -> Bar {
        let mut bar = bar.clone();
        bar.pop();
        if let Some(pitch) = bar.last().and_then(|(_, pitches)| pitches.last()) {
            self.pitch = *pitch;
        }
        let beat = self.beat(0);
        bar.push(beat);
        bar
    }

    /// The last bar of a part: its last beat is the nearest tonic.
    fn closing_bar(&mut self) -> Bar {
        let mut bar: Bar = (1..self.rhythm.beats).map(|_| self.beat(4)).collect();
        let near = |tonic: &i32| (tonic - self.pitch).abs();
        let tonics = RANGE.filter(|pitch| (pitch - self.tonic).rem_euclid(7) == 0);
        self.pitch = tonics.min_by_key(near).unwrap_or(self.tonic);
        let division: &[i32] = match self.rhythm.beat {
            2 => &[2],
            3 => &[3],
            _ => &[4],
        };
        bar.push((division, vec![self.pitch]));
        bar
    }
}

fn write_bar(bar: &Bar, text: &mut String) {
    for (index, (division, pitches)) in bar.iter().enumerate() {
        if index > 0 {
            text.push(' ');
        }
        let mut pitches = pitches.iter();
        let mut note = |text: &mut String| pitches.next().map_or((), |pitch| write_pitch(*pitch, text));
        for length in *division {
            match length {
                -3 => {
                    text.push_str("(3");
                    (0..3).for_each(|_| note(text));
                }
                -1 => {
                    note(text);
                    text.push('>');
                    note(text);
                }
                1 => note(text),
                length => {
                    note(text);
                    let _ = write!(text, "{length}");
                }
            }
        }
    }
}

/// Pitches that an element of a division takes.
fn notes_of(length: i32) -> usize {
    match length {
        -3 => 3,
        -1 => 2,
        _ => 1,
    }
}

fn write_pitch(pitch: i32, text: &mut String) {
    let letter = b"CDEFGAB"[pitch.rem_euclid(7) as usize];
    match pitch.div_euclid(7) {
        0 => text.push(char::from(letter)),
        1 => text.push(char::from(letter.to_ascii_lowercase())),
        octave if octave > 1 => {
            text.push(char::from(letter.to_ascii_lowercase()));
            text.push('\'');
        }
        _ => {
            text.push(char::from(letter));
            text.push(',');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sixths of an eighth note in a bar, read off the notation by rules of its own.
    fn length_of(bar: &str) -> u32 {
        let (mut total, mut triplet) = (0, 0);
        let mut chars = bar.chars().peekable();
        while let Some(char) = chars.next() {
            match char {
                '(' => {
                    assert_eq!(chars.next(), Some('3'));
                    triplet = 3;
                }
                'A'..='G' | 'a'..='g' => {
                    chars.next_if(|mark| [',', '\''].contains(mark));
                    let length = chars.next_if(char::is_ascii_digit).and_then(|digit| digit.to_digit(10)).unwrap_or(1);
                    total += if triplet > 0 { 4 * length } else { 6 * length };
                    triplet -= u32::from(triplet > 0);
                }
                // The dot lengthens one note and shortens the other by the same time.
                '>' | ' ' => {}
                other => panic!("`{other}` in `{bar}`"),
            }
        }
        total
    }

    #[test]
    fn every_bar_fills_its_meter() {
        let text = abc(3);
        let mut bars = 0;
        for tune in text.split_terminator("\n\n") {
            let field = |name: &str| tune.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            let (upper, lower) = field("M:").split_once('/').unwrap();
            let eighths = upper.parse::<u32>().unwrap() * 8 / lower.parse::<u32>().unwrap();
            assert_eq!(field("L:"), "1/8");
            assert!(!field("T:").is_empty() && !field("K:").is_empty());
            let music: String = tune.lines().filter(|line| line.starts_with('|')).collect();
            assert_eq!(music.matches("|:").count(), music.matches(":|").count());
            for bar in music.split(['|', ':']).filter(|bar| !bar.is_empty()) {
                assert_eq!(length_of(bar), 6 * eighths, "{bar} in\n{tune}");
                bars += 1;
            }
        }
        assert!(bars > 5000);
    }

    #[test]
    fn size_and_seeds() {
        let text = abc(1);
        assert!((250_000..251_000).contains(&text.len()), "{}", text.len());
        assert_eq!(text, abc(1));
        assert_ne!(text, abc(2));
        assert!(text.starts_with("X:1\nT:") && text.ends_with(":|\n\n"));
    }

    #[test]
    fn the_tracked_file_is_what_datagen_writes() {
        let tracked = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/abc-small.txt");
        let tracked = std::fs::read_to_string(tracked).unwrap();
        assert!(tracked == abc(1), "run `alpha datagen abc --seed=1 > data/abc-small.txt`");
    }
}
