//! A subject in plain signs: lower case, without invisible characters, look-alikes replaced by the signs they look
//! like.
//!
//! Only for reading. Of what is shown, only the words that a refusal quotes are made of it.

use unicode_normalization_alignments::UnicodeNormalization;

use crate::visible;

/// The text in plain signs: compatibility forms decomposed (NFKD), accents dropped, look-alikes replaced.
pub(super) fn plain(text: &str) -> String {
    let seen = text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).filter(|&c| !visible::is_hidden(c));
    let seen: String = seen.collect();
    // Twice, because lowering the case can undo the normal form, and the reverse.
    let folded: String = seen.nfkd().flat_map(|(c, _)| c.to_lowercase()).collect();
    folded.nfkd().map(|(c, _)| c).filter(|&c| !is_combining(c)).flat_map(plain_char).collect()
}

fn is_combining(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe00}'..='\u{fe0f}' | '\u{fe20}'..='\u{fe2f}')
}

/// The zeros of scripts whose ten digits are consecutive and that NFKD leaves alone.
const ZEROS: &str = "٠۰߀०০੦૦୦௦౦೦൦෦๐໐༠၀႐០᠐᥆᧐᪀᪐᭐᮰᱀᱐꘠꣐꤀꧐꧰꩐꯰𐒠𑁦𑃰𑄶𑇐𑋰𑑐𑓐𑙐𑛀𑜰𑣠𑱐𑵐𑶠𖩠𖭐𞅀𞋰𞥐";

/// Letters that look like a Latin letter, each behind that letter.
const LETTERS: &str = "aаαɑᴀ bвʙ cсϲᴄ dԁᴅ eеεҽᴇ fꜰ gɡԍɢ hһнʜ iіιıӏɪ jјᴊ kкκᴋ lʟ mмᴍ nոηпɴ oоοօσᴏ pрρᴘ qԛ rгʀ sѕꜱ tтτᴛ uսυμᴜ \
                       vνѵᴠ wԝᴡ xхχ yуγʏ zᴢ";

/// Signs, each behind the plain sign that replaces it.
const SIGNS: &[(char, &str)] = &[
    ('-', "−–—―‒‐‑⁃˗➖➘↓⇓⇩⬇▼▽🔽⏬↘📉"),
    ('+', "➕∔⊕↑⇑⇧⬆▲△🔼⏫↗📈"),
    ('x', "×✕✖⨯⨉·∙⋅"),
    ('%', "٪⁒‰‱؉؊"),
    ('/', "⁄∕⧸╱"),
    ('~', "≈∼≃≅⁓"),
    ('→', "⇒➜➔➙➛⟶⟹⇾►▶»"),
    (',', "،٫‚"),
    ('(', "[{⟨【「"),
    (')', "]}⟩】」"),
];

fn plain_char(c: char) -> impl Iterator<Item = char> {
    let found = if c.is_ascii() && !"[]{}".contains(c) { None } else { look_alike(c) };
    // Signs for ten and above are read as zero, the digit that the number ends in.
    std::iter::once(found.unwrap_or(c))
}

fn look_alike(c: char) -> Option<char> {
    let digit = |value: u32| char::from_digit(value, 10);
    let code = u32::from(c);
    if let Some(zero) = ZEROS.chars().map(u32::from).find(|zero| (*zero..zero + 10).contains(&code)) {
        return digit(code - zero);
    }
    if let Some(value) = "〇一二三四五六七八九".chars().position(|han| han == c) {
        return digit(value as u32);
    }
    match c {
        '十' | '百' | '千' | '万' => return Some('0'),
        '❶'..='❿' => return digit((code - u32::from('❶') + 1) % 10),
        '➀'..='➉' => return digit((code - u32::from('➀') + 1) % 10),
        '➊'..='➓' => return digit((code - u32::from('➊') + 1) % 10),
        _ => {}
    }
    let letter = LETTERS.split_whitespace().find(|letters| letters.chars().skip(1).any(|letter| letter == c));
    letter
        .and_then(|letters| letters.chars().next())
        .or_else(|| SIGNS.iter().find(|(_, signs)| signs.contains(c)).map(|(plain, _)| *plain))
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn look_alikes_are_what_they_look_like() {
        for (text, read) in [
            ("Perf: x (+30％ tok/s)", "perf: x (+30% tok/s)"),
            ("＋３０％ ｔｏｋ／ｓ", "+30% tok/s"),
            ("+3\u{200b}0\u{2060}% to\u{ad}k/s", "+30% tok/s"),
            ("\u{202e}+30%\u{202c} tok\u{200d}/s", "+30% tok/s"),
            ("𝟛𝟘% 𝐟𝐚𝐬𝐭𝐞𝐫 ③⓪", "30% faster 30"),
            ("٣٠٪ ३० ๓๐ 三十", "30% 30 30 30"),
            ("❸❿", "30"),
            ("1.3× 1.3✕ 2⨯", "1.3x 1.3x 2x"),
            ("➕30 −5 –5", "+30 -5 -5"),
            ("½ ⅓ of 1⁄3", "1/2 1/3 of 1/3"),
            ("tоk/ѕ fаstеr ꜰᴀꜱᴛᴇʀ", "tok/s faster faster"),
            ("3̲0̲% fáster 3\u{fe0f}\u{20e3}", "30% faster 3"),
            ("tok/s⁻¹ tok·s", "tok/s-1 tokxs"),
            ("30\u{a0}% 30\u{202f}%", "30 % 30 %"),
        ] {
            assert_eq!(plain(text), read, "{text}");
        }
    }
}
