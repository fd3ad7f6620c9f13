//! Finds a speed-up in a subject: a quantity beside a word of speed or time, with a direction.
//!
//! The grammar is small on purpose. A subject is cut into phrases at commas and words such as `for` or `with`. Within a
//! phrase, a quantity belongs to the next word about speed behind it, else to the last one before it. It is a claim if
//! it means more speed, less time, or stands beside a word such as `faster`. It is not a claim if words about something
//! else are in between, after `not`, or if it is a loss.

use super::words::{Kind, Token, tokens};

/// Kinds of commits that are about speed: there, a bare `(+30%)` is a claim.
const OF_SPEED: &[&str] =
    &["perf", "performance", "speed", "speedup", "opt", "optim", "optimize", "optimise", "optimization", "fast"];
/// Kinds of commits in which speed is not that of training.
const ELSEWHERE: &[&str] =
    &["ci", "build", "test", "tests", "doc", "docs", "chore", "style", "lint", "deps", "release", "readme"];
/// Kinds of commits in which a bare percentage is unlikely to be of speed.
const OF_ELSE: &[&str] =
    &["fix", "bench", "benches", "refactor", "data", "eval", "model", "ledger", "instrument", "feat"];

/// Words that may stand between a quantity and its word of speed.
const REACH: usize = 3;

/// The first speed-up in a subject in plain signs, in its words.
pub(super) fn speedup(text: &str) -> Option<&str> {
    let (kind, rest) = split_kind(text);
    let tokens = tokens(rest);
    let reader = Reader { tokens: &tokens, kind };
    let found = reader.risen_or_fallen().or_else(|| {
        reader.phrases().into_iter().find_map(|phrase| {
            reader.verbs(phrase).or_else(|| reader.quantities(phrase).iter().find_map(|of| reader.claim(phrase, of)))
        })
    });
    found.map(|(first, last)| &rest[tokens[first].start..tokens[last].end])
}

/// `perf(scope)!: ` and what follows; a kind that is itself a word of speed (`tok/s: +30%`) is left where it is.
pub(super) fn split_kind(text: &str) -> (&str, &str) {
    let bare = text.trim_start_matches(|c: char| !c.is_alphanumeric() && !"+-(~%.".contains(c));
    let end = bare.find(|c: char| !c.is_ascii_alphanumeric() && !"_-".contains(c)).unwrap_or(bare.len());
    let (kind, mut rest) = bare.split_at(end);
    if let Some((_, after)) = rest.strip_prefix('(').and_then(|scope| scope.split_once(')')) {
        rest = after;
    }
    let rest = rest.strip_prefix('!').unwrap_or(rest);
    let names_speed = tokens(kind)
        .iter()
        .any(|token| matches!(token.kind, Kind::Rate | Kind::Speed | Kind::Duration | Kind::Faster | Kind::Number(_)));
    match rest.strip_prefix(':') {
        Some(rest) if !kind.is_empty() && (OF_SPEED.contains(&kind) || !names_speed) => (kind, rest),
        _ => ("", bare),
    }
}

/// Tokens `from` up to, not including, `to`.
#[derive(Clone, Copy, Debug)]
struct Span {
    from: usize,
    to: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Measure {
    Percent,
    Factor(f64),
    Share,
    Time,
    Rate,
}

#[derive(Clone, Copy, Debug)]
struct Quantity {
    span: Span,
    measure: Measure,
    sign: Sign,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Sign {
    None,
    Plus,
    Minus,
    /// `±`: a spread.
    Noise,
}

/// Indices of the first and the last token of a claim.
type Found = Option<(usize, usize)>;

struct Reader<'t> {
    tokens: &'t [Token<'t>],
    kind: &'t str,
}

impl Reader<'_> {
    fn kind_at(&self, place: usize, span: Span) -> Option<Kind> {
        (place >= span.from && place < span.to).then(|| self.tokens[place].kind)
    }

    fn text_at(&self, place: usize) -> &str {
        self.tokens.get(place).map_or("", |token| token.text)
    }

    fn touches(&self, place: usize) -> bool {
        self.tokens.get(place + 1).is_some_and(|next| next.start == self.tokens[place].end)
    }

    /// The phrases.
    fn phrases(&self) -> Vec<Span> {
        let mut phrases = Vec::new();
        let mut from = 0;
        for place in 0..=self.tokens.len() {
            let ends = self.tokens.get(place).is_none_or(|token| match token.kind {
                Kind::Break => true,
                Kind::Sign('-') => {
                    place > 0 && !self.touches(place) && !self.touches(place - 1) && self.text_at(place - 1) != "("
                }
                Kind::Sign(sign) => ",;.|→!?&".contains(sign),
                // `by doing something`: the words that follow are about that.
                _ => token.text == "by" && self.text_at(place + 1).ends_with("ing"),
            });
            if ends {
                if from < place {
                    phrases.push(Span { from, to: place });
                }
                from = place + 1;
            }
        }
        phrases
    }

    fn quantities(&self, phrase: Span) -> Vec<Quantity> {
        let mut found = Vec::new();
        let mut place = phrase.from;
        while place < phrase.to {
            let Some((to, measure)) = self.measure(place, phrase) else {
                place = self.behind_size(place).unwrap_or(place + 1);
                continue;
            };
            let counts_before = measure == Measure::Share
                && matches!(self.kind_at(place.wrapping_sub(1), phrase), Some(Kind::Number(_)));
            let from = if counts_before { place - 1 } else { place };
            let span = Span { from, to };
            let sign = self.sign(span, phrase);
            if sign != Sign::Noise {
                found.push(Quantity { span, measure, sign });
            }
            place = to;
        }
        found
    }

    /// `4x4` and `2x3x4` are sizes; returns the place behind.
    fn behind_size(&self, place: usize) -> Option<usize> {
        let is_number = |place: usize| matches!(self.tokens.get(place).map(|token| token.kind), Some(Kind::Number(_)));
        let mut place = place;
        let begins = is_number(place);
        while is_number(place)
            && self.touches(place)
            && self.text_at(place + 1) == "x"
            && self.touches(place + 1)
            && is_number(place + 2)
        {
            place += 2;
        }
        begins.then_some(place + 1)
    }

    /// The quantity that begins here, and the place behind it.
    fn measure(&self, place: usize, phrase: Span) -> Option<(usize, Measure)> {
        let kind = |place: usize| self.kind_at(place, phrase);
        match kind(place)? {
            Kind::Multiple => Some((place + 1, Measure::Factor(2.0))),
            Kind::Share => Some((place + 1, Measure::Share)),
            Kind::Percent if self.touches(place) && matches!(kind(place + 1), Some(Kind::Number(_))) => {
                Some((place + 2, Measure::Percent))
            }
            Kind::Times => match kind(place + 1) {
                Some(Kind::Number(value)) if self.text_at(place) == "x" && kind(place + 2) != Some(Kind::Percent) => {
                    Some((place + 2, Measure::Factor(value)))
                }
                _ => None,
            },
            Kind::Number(value) => {
                if self.behind_size(place) != Some(place + 1) {
                    return None;
                }
                let mut at = place + 1;
                let mut value = value;
                while let Some(next) = kind(at) {
                    match next {
                        Kind::Number(more) => value = more.max(value),
                        Kind::Filler if matches!(self.text_at(at), "k" | "m" | "g") => {}
                        Kind::Filler
                            if self.text_at(at) == "of"
                                && matches!(kind(at + 1), Some(Kind::Percent | Kind::Times)) => {}
                        Kind::Sign('-' | '+')
                            if matches!(kind(at + 1), Some(Kind::Percent | Kind::Times | Kind::Time)) => {}
                        _ => break,
                    }
                    at += 1;
                }
                let measure = match kind(at) {
                    Some(Kind::Percent) => Measure::Percent,
                    Some(Kind::Times)
                        if !(self.text_at(at) == "x"
                            && self.touches(at)
                            && matches!(kind(at + 1), Some(Kind::Number(_)))) =>
                    {
                        Measure::Factor(value)
                    }
                    Some(Kind::Time) => Measure::Time,
                    Some(Kind::Rate) => Measure::Rate,
                    _ if self.is_factor_of(place) => return Some((at, Measure::Factor(value))),
                    _ => return None,
                };
                Some((at + 1, measure))
            }
            _ => None,
        }
    }

    /// `by a factor of 2`, `factor 2`.
    fn is_factor_of(&self, place: usize) -> bool {
        let before = |back: usize| place.checked_sub(back).map_or("", |place| self.text_at(place));
        before(1) == "factor" || before(2) == "factor" && before(1) == "of"
    }

    /// The sign before a quantity. A dash between words is not one.
    fn sign(&self, span: Span, phrase: Span) -> Sign {
        let before = |back: usize| {
            let place = span.from.checked_sub(back).filter(|place| *place >= phrase.from);
            place.map_or("", |place| self.text_at(place))
        };
        let begins = span.from == phrase.from + 1 || before(2) == "(";
        match before(1) {
            "±" => Sign::Noise,
            "+" | "plus" => Sign::Plus,
            "minus" => Sign::Minus,
            "-" if matches!(before(2), "+" | "/") => Sign::Noise,
            "-" if begins || self.touches(span.from - 1) && !self.touches(span.from - 2) => Sign::Minus,
            _ => Sign::None,
        }
    }

    /// Whether a quantity is of speed, and means more of it.
    fn claim(&self, phrase: Span, of: &Quantity) -> Found {
        if self.is_negated(of) {
            return None;
        }
        let Span { from, to } = of.span;
        let begin = from - usize::from(of.sign != Sign::None);
        if of.measure == Measure::Rate {
            let more =
                matches!(self.kind_at(to, phrase), Some(Kind::Up | Kind::Faster)) || self.text_at(to) == "faster";
            return (of.sign == Sign::Plus || more).then_some((begin, to - 1));
        }
        let behind = self.behind(phrase, of).filter(|&place| self.is_gain(phrase, of, place));
        if let Some(place) = behind {
            return Some((begin, place));
        }
        let before = self.before(phrase, of).filter(|&place| self.is_gain(phrase, of, place));
        if let Some(place) = before {
            return Some((place, to - 1));
        }
        self.bare(phrase, of)
    }

    /// The next word of speed or time behind a quantity.
    fn behind(&self, phrase: Span, of: &Quantity) -> Option<usize> {
        let mut words = 0;
        for place in of.span.to..phrase.to {
            match self.tokens[place].kind {
                Kind::Faster | Kind::Speed | Kind::Rate | Kind::Duration => return Some(place),
                Kind::PerStep if of.measure == Measure::Time => return Some(place),
                Kind::Sign('-' | '+' | '~' | '"' | '\'' | '`' | '*' | '_')
                | Kind::Filler
                | Kind::Up
                | Kind::Down
                | Kind::Preposition
                | Kind::Training => {}
                // `1.3x/2x faster`
                Kind::Word | Kind::Sign('/') | Kind::Number(_) | Kind::Times | Kind::Percent if words < REACH => {
                    words += 1;
                }
                _ => return None,
            }
        }
        None
    }

    /// The last word of speed or time before a quantity, if nothing in between belongs to something else.
    fn before(&self, phrase: Span, of: &Quantity) -> Option<usize> {
        let ends = match self.kind_at(of.span.to, phrase) {
            None | Some(Kind::Preposition | Kind::Up | Kind::Down) => true,
            Some(Kind::Sign(sign)) => sign != '-',
            Some(Kind::Filler) => self.text_at(of.span.to) != "of",
            _ => false,
        };
        let mut words = 0;
        for place in (phrase.from..of.span.from).rev().filter(|_| ends) {
            match self.tokens[place].kind {
                Kind::Faster | Kind::Speed | Kind::Rate | Kind::Duration => return Some(place),
                Kind::Sign(')') => return None,
                Kind::Sign(_) | Kind::Filler | Kind::Up | Kind::Down | Kind::Training => {}
                Kind::Word | Kind::Preposition | Kind::PerStep | Kind::Number(_) | Kind::Percent | Kind::Times
                    if words < REACH =>
                {
                    words += 1;
                }
                _ => return None,
            }
        }
        None
    }

    /// Whether the word of speed at `place` makes the quantity a gain.
    fn is_gain(&self, phrase: Span, of: &Quantity, place: usize) -> bool {
        let word = self.tokens[place].kind;
        let whole = &self.tokens[phrase.from..phrase.to];
        let is_elsewhere = ELSEWHERE.contains(&self.kind) || whole.iter().any(|token| token.kind == Kind::Elsewhere);
        let is_training = whole.iter().any(|token| token.kind == Kind::Training);
        if is_elsewhere && !is_training && word != Kind::Rate && of.sign != Sign::Plus {
            return false;
        }
        let (first, last) = (of.span.from.min(place), (of.span.to - 1).max(place));
        let around = Span { from: first.saturating_sub(4).max(phrase.from), to: (last + 2).min(phrase.to) };
        let has = |kind: Kind| self.tokens[around.from..around.to].iter().any(|token| token.kind == kind);
        let is_share_of = of.measure != Measure::Time && self.text_at(of.span.to) == "of";
        let follows = place >= of.span.to;
        let between = &self.tokens[(last.min(of.span.to)).min(place)..last];
        match word {
            Kind::Faster => true,
            Kind::Speed | Kind::Rate => {
                let is_lost = of.sign == Sign::Minus || has(Kind::Loss) || has(Kind::Down);
                let is_adjacent = follows && between.iter().all(|token| !matches!(token.kind, Kind::Word));
                let is_more = match of.measure {
                    Measure::Percent => of.sign == Sign::Plus || has(Kind::Up) || is_adjacent,
                    Measure::Factor(factor) => {
                        factor > 1.0
                            && (!follows || between.iter().filter(|token| token.kind == Kind::Word).count() < 2)
                    }
                    Measure::Share => has(Kind::Up),
                    Measure::Time | Measure::Rate => false,
                };
                let is_signed = of.sign == Sign::Plus && !matches!(self.kind_at(last + 1, phrase), Some(Kind::Loss));
                (is_signed || !is_lost && is_more) && !is_share_of
            }
            Kind::Duration | Kind::PerStep => {
                let is_short = |place: Option<usize>| {
                    place.is_some_and(|place| {
                        matches!(self.text_at(place), "in" | "take" | "takes" | "took" | "need" | "needs")
                    })
                };
                let from = of.span.from;
                // `in half the time`, `takes a third of the time`.
                let in_half = of.measure == Measure::Share
                    && (is_short(from.checked_sub(1))
                        || is_short(from.checked_sub(2)) && matches!(self.text_at(from - 1), "a" | "one"));
                let is_less = of.sign == Sign::Minus
                    || has(Kind::Down)
                    || self.text_at(place).starts_with("less")
                    || in_half
                    || matches!(of.measure, Measure::Factor(factor) if factor < 1.0)
                    || of.measure == Measure::Share && follows && !self.text_at(place).contains("the time");
                of.sign != Sign::Plus && is_less && !has(Kind::Other) && (!is_share_of || in_half || has(Kind::Down))
            }
            _ => false,
        }
    }

    /// A bare `(+30%)` or `1.3x` in a commit about speed.
    fn bare(&self, phrase: Span, of: &Quantity) -> Found {
        let Span { from, to } = of.span;
        let has = |kind: Kind| self.tokens[phrase.from..phrase.to].iter().any(|token| token.kind == kind);
        if has(Kind::Other) || has(Kind::Elsewhere) || has(Kind::Loss) || ELSEWHERE.contains(&self.kind) {
            return None;
        }
        let is_shape = self.tokens.iter().any(|token| token.kind == Kind::Shape);
        let is_of_speed = OF_SPEED.contains(&self.kind);
        let mut open = from;
        while open > phrase.from
            && (open == from && of.sign != Sign::None
                || matches!(self.text_at(open - 1), "~" | "about" | "approx" | "ca" | "up to"))
        {
            open -= 1;
        }
        let in_brackets = open > phrase.from && self.text_at(open - 1) == "(" && self.text_at(to) == ")";
        let ends = self.tokens.get(to).is_none_or(|token| match token.kind {
            Kind::Preposition | Kind::Break => true,
            Kind::Sign(sign) => sign != '-',
            _ => false,
        });
        let is_claim = match of.measure {
            Measure::Percent => {
                let gain = matches!(
                    self.text_at(to),
                    "gain"
                        | "gains"
                        | "win"
                        | "wins"
                        | "improvement"
                        | "improvements"
                        | "boost"
                        | "uplift"
                        | "better"
                        | "increase"
                );
                let named =
                    from.checked_sub(1).map(|place| place - usize::from(place > 0 && self.text_at(place) == ":"));
                let gain = gain
                    || ends
                        && named.is_some_and(|place| {
                            matches!(self.text_at(place), "gain" | "gains" | "win" | "wins" | "worth")
                        });
                let may_be = is_of_speed || !OF_ELSE.contains(&self.kind);
                of.sign == Sign::Plus && ends && may_be || is_of_speed && of.sign == Sign::None && (in_brackets || gain)
            }
            Measure::Factor(factor) => {
                is_of_speed && !is_shape && self.text_at(to - 1) != "times" && factor > 1.0 && (in_brackets || ends)
            }
            _ => false,
        };
        is_claim.then_some((from - usize::from(of.sign != Sign::None), to - 1))
    }

    /// `not 30% faster`, but not `not only 30% faster`.
    fn is_negated(&self, of: &Quantity) -> bool {
        let mut place = of.span.from;
        while place > 0 {
            place -= 1;
            let token = &self.tokens[place];
            match token.kind {
                Kind::Negation => return true,
                Kind::Filler if matches!(token.text, "only" | "just" | "merely") => return false,
                Kind::Filler | Kind::Sign('~' | '+' | '\'') => {}
                _ if token.text == "t" => {}
                _ => return token.text == "without",
            }
        }
        false
    }

    /// `doubles throughput`, `step time halved`.
    fn verbs(&self, phrase: Span) -> Found {
        let fits = |verb: Kind, word: Kind| match verb {
            Kind::Doubles => matches!(word, Kind::Speed | Kind::Rate),
            _ => word == Kind::Duration,
        };
        let may_stand_between =
            |kind: Kind| matches!(kind, Kind::Filler | Kind::Training | Kind::Preposition | Kind::Sign('-'));
        (phrase.from..phrase.to).find_map(|place| {
            let verb = self.tokens[place].kind;
            if !matches!(verb, Kind::Doubles | Kind::Halves) {
                return None;
            }
            let behind = (place + 1..phrase.to).find(|&place| !may_stand_between(self.tokens[place].kind));
            let before = (phrase.from..place).rev().find(|&place| !may_stand_between(self.tokens[place].kind));
            let fitting = |found: &usize| fits(verb, self.tokens[*found].kind);
            let is_elsewhere = self.tokens[phrase.from..phrase.to].iter().any(|token| token.kind == Kind::Elsewhere);
            let behind = behind.filter(fitting).map(|found| (place, found));
            behind.or_else(|| before.filter(fitting).map(|found| (found, place))).filter(|_| !is_elsewhere)
        })
    }

    /// `1200 -> 1560 tok/s`, `step time from 45 to 30 ms`.
    fn risen_or_fallen(&self) -> Found {
        let whole = Span { from: 0, to: self.tokens.len() };
        (0..self.tokens.len()).find_map(|place| {
            let Kind::Number(before) = self.tokens[place].kind else { return None };
            let is_unit = |place: usize| {
                matches!(self.kind_at(place, whole), Some(Kind::Rate | Kind::Time | Kind::PerStep | Kind::Percent))
                    || matches!(self.text_at(place), "k" | "m")
            };
            let behind_units = |mut place: usize| {
                while is_unit(place) {
                    place += 1;
                }
                place
            };
            let arrow = behind_units(place + 1);
            // `1560 tok/s, was 1200`
            let was = arrow + usize::from(matches!(self.text_at(arrow), "," | "("));
            let is_back = matches!(self.text_at(was), "was" | "were" | "before" | "previously");
            let arrow = if is_back { was } else { arrow };
            if !is_back && !matches!(self.text_at(arrow), "→" | "to" | "->" | "=>") {
                return None;
            }
            let Some(Kind::Number(other)) = self.kind_at(arrow + 1, whole) else { return None };
            let (before, after) = if is_back { (other, before) } else { (before, other) };
            let end = behind_units(arrow + 2);
            // The noun: in its unit, right before, or right behind.
            let near = Span { from: place.saturating_sub(4), to: (end + 2).min(whole.to) };
            let of = |kinds: &[Kind]| (near.from..near.to).any(|place| kinds.contains(&self.tokens[place].kind));
            let is_faster = of(&[Kind::Rate, Kind::Speed]) && after > before;
            let is_of_speed = OF_SPEED.contains(&self.kind) && of(&[Kind::Time]);
            let is_time = (is_of_speed || of(&[Kind::Duration, Kind::PerStep]))
                && !of(&[Kind::Elsewhere, Kind::Other])
                && !ELSEWHERE.contains(&self.kind);
            (is_faster || is_time && after < before).then_some((place, end - 1))
        })
    }
}
