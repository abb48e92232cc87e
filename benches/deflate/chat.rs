//! Chat as rooms carry it, made up from a seed: whole pushes of the server's own encoder, in four
//! languages, with files, and as pages of history. Invariant: the same kind, size and number are the
//! same bytes on every machine.
//!
//! Words come by their rank, as words of a language do, and one in eight is rare: what a compressor
//! finds to repeat is then what it finds in prose of that length (`compression.md` compares the two).

use ringroom::wire::encode::{self, Push};
use ringroom::wire::frame;

/// What a message says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    English,
    German,
    Russian,
    Chinese,
    /// A few words and files: addresses, sizes, hashes.
    Files,
    /// Short messages in a list, as a history's page and the batches of applications.
    Page,
    /// Base64 of bytes that nothing is known about: what cannot shrink by more than its alphabet.
    Noise,
}

impl Kind {
    pub const ALL: [Kind; 7] =
        [Kind::English, Kind::German, Kind::Russian, Kind::Chinese, Kind::Files, Kind::Page, Kind::Noise];
}

/// What rooms are full of, in the order in which benches go through it.
pub const MIXED: [Kind; 8] =
    [Kind::English, Kind::Russian, Kind::Files, Kind::English, Kind::German, Kind::Page, Kind::English, Kind::Chinese];

/// The payload of a push of this kind, `bytes` long or up to a character less.
pub fn message(kind: Kind, bytes: usize, number: u64) -> Vec<u8> {
    let mut chance = Chance(number.wrapping_mul(31).wrapping_add(kind as u64 * 7 + bytes as u64));
    let from = name(&mut chance);
    let room = format!("chat:{}", ["team-backend", "general", "4711", "support:de", "family"][chance.below(5)]);
    let mid = mid(&mut chance);
    let seq = 1_000 + chance.below(90_000) as u64;
    let ts = 1_763_690_000_000 + chance.below(86_400_000) as u64;
    let pushed = |data: &str| {
        let push = Push {
            event: "chat",
            room: Some(&room),
            seq: Some(seq),
            mid: Some(&mid),
            ts: Some(ts),
            from: Some(&from),
            data: data.as_bytes(),
        };
        let mut out = Vec::new();
        encode::push(&mut out, &push);
        frame::parts(&out).1.to_vec()
    };
    let left = bytes.saturating_sub(pushed(&data(kind, 0, &mut chance.clone())).len());
    pushed(&data(kind, left, &mut chance))
}

/// Data with about `bytes` of what makes it long.
fn data(kind: Kind, bytes: usize, chance: &mut Chance) -> String {
    match kind {
        Kind::English | Kind::German | Kind::Russian | Kind::Chinese => {
            let text = prose(kind, bytes, chance);
            let local = hex(chance, 8);
            format!(r#"{{"id":"{local}","type":"text","text":"{text}","reply_to":null,"edited":false,"mentions":[]}}"#)
        }
        Kind::Files => {
            let mut files = String::new();
            loop {
                let file = file(chance);
                if files.len() + file.len() > bytes {
                    break;
                }
                files += &file;
                files.push(',');
            }
            files.pop();
            let text = prose(Kind::English, bytes.saturating_sub(files.len()), chance);
            format!(r#"{{"type":"files","attachments":[{files}],"text":"{text}"}}"#)
        }
        Kind::Page => {
            let mut entries = String::new();
            for seq in 1_200u64.. {
                let (from, mid) = (name(chance), mid(chance));
                let mid = str::from_utf8(&mid).expect("base32");
                let ts = 1_763_690_000_000 + seq * 7_919;
                let len = 12 + chance.below(90);
                let text = prose(Kind::English, len, chance);
                let entry =
                    format!(r#"{{"seq":{seq},"mid":"{mid}","ts":{ts},"from":"{from}","data":{{"text":"{text}"}}}},"#);
                if entries.len() + entry.len() > bytes {
                    break;
                }
                entries += &entry;
            }
            entries.pop();
            let text = prose(Kind::English, bytes.saturating_sub(entries.len()), chance);
            format!(r#"{{"entries":[{entries}],"text":"{text}","more":true}}"#)
        }
        Kind::Noise => {
            const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
            let noise: String = (0..bytes).map(|_| char::from(DIGITS[chance.below(64)])).collect();
            format!(r#"{{"$bin":"{noise}"}}"#)
        }
    }
}

fn file(chance: &mut Chance) -> String {
    let (kind, end) = [("image/jpeg", "jpg"), ("image/png", "png"), ("video/mp4", "mp4"), ("application/pdf", "pdf")]
        [chance.below(4)];
    let (at, hash) = (hex(chance, 32), hex(chance, 64));
    let name = format!("IMG_{:04}.{end}", chance.below(10_000));
    let (bytes, width, height) = (chance.below(9_000_000), 320 + chance.below(4_000), 240 + chance.below(3_000));
    let place = format!(r#""url":"https://cdn.example.com/u/{at}/{name}","name":"{name}","mime":"{kind}""#);
    format!(r#"{{{place},"bytes":{bytes},"width":{width},"height":{height},"sha256":"{hash}"}}"#)
}

/// Sentences of a language, at most `bytes` long.
fn prose(kind: Kind, bytes: usize, chance: &mut Chance) -> String {
    let (words, rare): (&str, &str) = match kind {
        Kind::German => (GERMAN, GERMAN_SYLLABLES),
        Kind::Russian => (RUSSIAN, RUSSIAN_SYLLABLES),
        Kind::Chinese => (CHINESE, ""),
        _ => (ENGLISH, ENGLISH_SYLLABLES),
    };
    let (words, rare): (Vec<&str>, Vec<&str>) = match kind {
        // Characters are words there, and nothing stands between them.
        Kind::Chinese => (words.split("").filter(|one| !one.trim().is_empty()).collect(), Vec::new()),
        _ => (words.split_whitespace().collect(), rare.split_whitespace().collect()),
    };
    let mut text = String::new();
    let mut left_in_sentence = 0;
    while text.len() < bytes {
        let begins = left_in_sentence == 0;
        if begins {
            left_in_sentence = 3 + chance.below(12);
        }
        left_in_sentence -= 1;
        let ends = left_in_sentence == 0;
        if kind == Kind::Chinese {
            text += words[chance.ranked(words.len())];
            if ends {
                text += ["。", "，", "，", "？", "！"][chance.below(5)];
            }
            continue;
        }
        let word = match chance.below(8) {
            0 if chance.below(4) == 0 => chance.below(2_000).to_string(),
            0 => (0..2 + chance.below(2)).map(|_| rare[chance.below(rare.len())]).collect(),
            _ => words[chance.ranked(words.len())].to_owned(),
        };
        let mut letters = word.chars();
        match letters.next() {
            Some(first) if begins => text.extend(first.to_uppercase().chain(letters)),
            _ => text += &word,
        }
        text += match (ends, chance.below(12)) {
            (true, 0) => " 😂 ",
            (true, 1) => " 👍 ",
            (true, 2 | 3) => "! ",
            (true, 4 | 5) => "? ",
            (true, 6) => r"\n",
            (true, _) => ". ",
            (false, 0) => ", ",
            (false, _) => " ",
        };
    }
    // Never half of a character, and of an escape neither.
    while text.len() > bytes || text.ends_with('\\') {
        text.pop();
    }
    text
}

fn name(chance: &mut Chance) -> String {
    const NAMES: [&str; 12] =
        ["alice", "bob", "jonas", "mira", "ivan", "olga", "wei", "fatima", "carlos", "yuki", "noah", "u-10482"];
    NAMES[chance.below(NAMES.len())].to_owned()
}

fn mid(chance: &mut Chance) -> [u8; 26] {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    // As those of one room within a day: the time's first digits and the shard's are the same.
    std::array::from_fn(|place| match place {
        0..5 => b"01M7Y"[place],
        14..20 => b"8000A0"[place - 14],
        _ => DIGITS[chance.below(32)],
    })
}

fn hex(chance: &mut Chance, digits: usize) -> String {
    (0..digits).map(|_| char::from(b"0123456789abcdef"[chance.below(16)])).collect()
}

/// SplitMix64.
#[derive(Clone)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// A rank below `bound`: the first ones come most often. In whole numbers, since the last digits of
    /// powers differ between machines.
    fn ranked(&mut self, bound: usize) -> usize {
        let (one, other) = (self.below(bound), self.below(bound));
        one * other / bound
    }
}

const ENGLISH: &str = "the to i you a and it is that of in we for on have be not this but so are can was with they \
    just do what if at all about get one there know think will my me your when now like from see time go how good need \
    out some no would today more because tomorrow yes here then could did want up right work great thanks let us only \
    make people really still going back where should something been after him her who meeting call again maybe much \
    well also why over say send first before than day already something new their week into two take very sure look \
    never always down other sorry problem tonight later place home morning thing things give around same idea another \
    please friend sounds better last next long anything every though people waiting between found those while nothing \
    too nice believe weekend train ticket office phone dinner coffee happy until month question answer family started \
    finished tried deploy release branch review server customer invoice contract address number photo video picture \
    link page version update broken fixed soon evening lunch money school house car garden weather raining sunny cold \
    hungry tired music film watch book reading running walking driving holiday birthday present party invite children \
    sister brother mother father doctor appointment yesterday remember forgot leaving arrived station airport flight \
    delayed early late quick slowly probably definitely actually literally basically honestly wonderful terrible";
const ENGLISH_SYLLABLES: &str = "an ber con der el fra gor hol in jam ket lor mus nor ost per quin rav sten tor \
    ul ver wick xen yor zel ash bran cliff don ed fern gil ham is kirk";
const GERMAN: &str = "\
    ich die der und das ist nicht du es in zu wir den ein so auf mit wie hab was dann mal auch noch ja wenn \
    aber für von sich dem kann im haben bin eine schon nur hat war da mir morgen heute sie mich gut bei nach \
    oder alles um jetzt als habe mehr nochmal machen denn gerade kommen danke bitte vielleicht geht doch sind \
    wird einfach immer wieder weiß muss uns euch dir dich über keine kein hier wo warum wann gestern später \
    früher genau richtig eigentlich trotzdem deswegen natürlich wahrscheinlich Arbeit Zeit Woche Besprechung \
    Termin Kunde Rechnung Vertrag Zug Bahnhof Verspätung Wetter Regen Wochenende Geburtstag Geschenk Kinder \
    Schule Wohnung Garten Küche Abendessen Kaffee Frühstück Urlaub Flughafen Fehler Lösung Änderung Prüfung \
    Freigabe Auslieferung Rückmeldung Entscheidung müssen können sollten würden hätten gehören schreiben \
    anrufen erreichen vergessen verstehen erklären besprechen verschieben schicken fertig müde hungrig \
    glücklich schnell langsam spät früh nächste letzte ganze beide andere zusammen zwischen während außerdem \
    übrigens tatsächlich hoffentlich unterwegs draußen drinnen oben unten gleich";
const GERMAN_SYLLABLES: &str = "ab auf be ent er ge ver zer hin her vor nach über stell gang halt stand trag schlag \
    heim keit ung lich bar haus werk zeug ort berg feld bach stein burg mann frau tür bau";
const RUSSIAN: &str = "\
    и в не на я что он с это а как то по у меня но за мы так же все вы ты если уже да когда из ну было только \
    мне бы его нет для есть там или еще до вот сейчас очень сегодня завтра можно надо где тебя будет тоже она \
    они к от просто чтобы хорошо потом были быть нас кто почему спасибо может после время раз ничего день \
    работа теперь дома знаю думаю хочу давай пока конечно наверное ладно понял почти снова никто всегда утром \
    вечером вчера скоро поздно рано встреча звонок письмо вопрос ответ проблема ошибка версия проект клиент \
    договор счет деньги город поезд самолет вокзал билет погода дождь холодно тепло выходные праздник подарок \
    дети школа друзья семья кофе ужин обед кино книга музыка фото видео ссылка страница номер адрес телефон \
    нормально отлично интересно странно быстро медленно правда неделя месяц минуту отправил посмотри проверь \
    напиши позвони забыл помню приехал уехал жду готово сделал сломалось починили обновление сервер задача \
    решение вместе рядом далеко около между другой новый последний";
const RUSSIAN_SYLLABLES: &str = "ко ро ста ни ла пре по ва ме ти го ру ше на ли во за ка ро де сто ри не та бо \
    ми ску дра вле гра пла стро";
const CHINESE: &str = "\
    的一是不了我在有人这他们来到时大地为子中你说生国年着就那和要她出也得里后自以会家可下而过天去能对小多\
    然于心学么之都好看起发当没成只如事把还用第样道想作种开美总从无情己面最女但现前些所同日手又行意动方期\
    它头经长儿回位分爱老因很给名法间斯知世什两次使身者被高已亲其进此话常与活正感见明问力理尔点文几定本公\
    特做外孩相西果走将月十实向声车全信重三机工物气每并别真打太新比才便夫再书部水像眼等体却加电主界门利海\
    受听表德少克代员许先口由死安写性马光白或住难望教命花结乐色更拉东神记处让母父应直字场平报友关放至张认\
    接告入笑内英军候民岁往何度山觉路带万男边风解叫任金快原吃妈变通师立象数四失满战远格士音轻目条呢病始达\
    深完今提求清王化空业思切怎非找片罗钱紧请谢明午饭班票店";
