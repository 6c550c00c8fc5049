"""Strings that tokenizers disagree about: made, not collected, so that they may be committed. Deterministic."""
import random
import unicodedata

PROSE = [
    "The quick brown fox jumps over the lazy dog, and nobody's sure why it wasn't told they'd won't stop.",
    "It's 2024-11-24T11:30:56Z; we've 1,234,567.89 reasons (or 3/4 of them) to write `code` & <tags/>.",
    "Der Müßiggänger aß größere Äpfel über Öl — „schön“, sagte er: daß ich's weiß!",
    "L'été où l'œuvre naïve coûta 12 € à l'élève, ça n'a pas plu; « voilà », dit-on.",
    "El pingüino comió ¿cuántos? ¡Ñandúes! año tras año… y más.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю. Ёжик №5.",
    "Η γρήγορη καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί· ΐ ΰ ς.",
    "敏捷的棕色狐狸跳过了懒狗。一九八四年，第３章：「你好，世界！」……",
    "いろはにほへと ちりぬるを。カタカナ、漢字とﾊﾝｶｸ文字がまざる〜。",
    "키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다. ㄱㄴㄷ",
    "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر ومغلف بجلد أزرق ١٢٣٤٥.",
    "דג סקרן שט בים מאוכזב ולפתע מצא חברה. שָׁלוֹם",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का १२३ क्‍ष।",
    "ইংরেজি বর্ণমালা কী? যে খায় চিনি তারে যোগান চিন্তামণি ৪৫৬।",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน ๑๒๓",
    "Quả chuối vàng ở Việt Nam rất ngọt; Tiếng Việt có dấu: ặ ẫ ổ ữ.",
    "Zażółć gęślą jaźń, Příliš žluťoučký kůň, Árvíztűrő tükörfúrógép, İstanbul'da ışık.",
    "யாமறிந்த மொழிகளிலே தமிழ்மொழி போல் இனிதாவது எங்கும் காணோம்.",
    "ყველა ადამიანი იბადება თავისუფალი. ՀԱՅԵՐԵՆ և հայերեն ևս։",
    "አማርኛ ሰላም ልዑል። ᚠᛇᚻ᛫ᛒᛦᚦ ᠮᠣᠩᠭᠣᠯ ខ្មែរ ລາວ བོད་ཡིག မြန်မာ",
    "x = y_0*2**n if n>=0x1F else [a[i:j] for i,j in zip(I, J)]  # O(n log n)",
    "int main(void)\n{\n\tprintf(\"%5.2f\\n\", 3.14f);\n\n    return 0; /* done */\n}\n",
    "def f(self, *args, **kwargs):\n    \"\"\"Doc.\"\"\"\n\n    for k, v in kwargs.items():\n        print(f'{k!r}={v:>10}')\n",
    "SELECT COUNT(*) FROM t WHERE a<>'b''c' AND d LIKE '%e_f%';\r\nGO\r\n",
    "<html lang=\"en\"><body class='x y'>&nbsp;&#x1F600;</body></html>",
    "{\"key\": [1, 2.5e-10, null, true, \"\\u00e9\\n\"], \"nested\": {}}",
    "https://example.org/a/b?c=d&e=f#g user.name+tag@example.co.uk C:\\Windows\\System32 ../../etc",
    "I'M YOU'RE HE'S WE'LL THEY'VE I'D don't 'tis 'Re 'lL rock'n'roll ' s's't're O'Neill's",
    "$\\frac{\\partial f}{\\partial x} \\approx \\sum_{i=1}^{n} x_i^2$ ≤ ∞ ∑∏√∫ ½ ² ³ Ⅷ ①②③ ㊙ ℃",
]
EMOJI = ["😀", "👍🏽", "👨‍👩‍👧‍👦", "🇩🇪🇫🇷", "🏳️‍🌈", "❤️", "🧑🏿‍🚀", "1️⃣", "☺", "🫠", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"]
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\r", "\n\n", "\v", "\f", "\u0085", "\u00a0", "\u1680", "\u180e",
          "\u2003", "\u2028", "\u2029", "\u202f", "\u3000", "\u200b", "\ufeff", "\u2060", "\x1c", "\x1f", " \n", "\n "]
MARKS = ["\u0300", "\u0301", "\u0308", "\u0323", "\u0327", "\u0345", "\u05b0", "\u064b", "\u093c", "\u0e38", "\u1dc0",
         "\u20d0", "\u3099", "\u302a", "\ufe20"]
SPECIALS = ["<s>", "</s>", "<unk>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool>", "<|begin_of_text|>",
            "<mask>", "<think>", "▁", "▁▁", "Ġ", "<0x0A>", "<0x41>"]


def prefixes(text):
    return [text[:n] for n in (1, 2, 3, 5, 8)]


def unicode_samples(rng):
    """Every block of 256 code points by a few of its members, and each kind of them between letters."""
    out = []
    for base in range(0, 0x20000, 0x80):
        block = [chr(c) for c in range(base, base + 0x80) if not 0xD800 <= c < 0xE000]
        if block:
            out.append("a".join(rng.sample(block, min(6, len(block)))) + "z")
    out.append("a\U00011DE0\U00011DE91\u0663\u216B\u180e \u1C89\U00010D70\U00010D50")  # known to one of two engines
    for base in (0x20000, 0x2A700, 0x2EBF0, 0x30000, 0x31350, 0xE0000, 0xE0100, 0xF0000, 0x10FF80):
        out.append("".join(chr(base + i) for i in range(0, 64, 7)))
    return out


def random_strings(rng, count):
    pool = [c for text in PROSE for c in text]
    pools = [
        lambda: rng.choice(pool),
        lambda: rng.choice(pool),
        lambda: rng.choice(SPACES),
        lambda: rng.choice(EMOJI),
        lambda: rng.choice(MARKS),
        lambda: chr(rng.randrange(32)),
        lambda: rng.choice("0123456789٣५߀Ⅻ²½"),
        lambda: rng.choice("'\"!?.,;:-_/\\|@#$%^&*()[]{}<>=+~`"),
        lambda: rng.choice(["'s", "'T", "'ll", "'ſ", "'RE", "n't"]),
        lambda: rng.choice(SPECIALS),
        lambda: " " + rng.choice(rng.choice(PROSE).split()),
        lambda: chr(rng.choice([rng.randrange(0x80, 0x800), rng.randrange(0x800, 0xD800),
                                rng.randrange(0xE000, 0x10000), rng.randrange(0x10000, 0x110000)])),
    ]
    out = []
    for _ in range(count):
        kinds = rng.sample(pools, rng.randrange(1, 6))
        out.append("".join(rng.choice(kinds)() for _ in range(rng.randrange(1, 24))))
    return out


def normalization_strings(rng, count):
    letters = [chr(c) for c in range(0xC0, 0x250)] + list("aeiouAEIOUcnsz") + ["\u1100", "\u1161", "\u11a8", "가", "か"]
    marks = MARKS + ["\u0304", "\u0307", "\u030c", "\u0331", "\u0344", "\u1161", "\u11a8", "\u2126", "\u212b", "\uf900"]
    out = []
    for _ in range(count):
        text = "".join(rng.choice(letters) + "".join(rng.choice(marks) for _ in range(rng.randrange(4))) for _ in range(4))
        out.append(unicodedata.normalize(rng.choice(["NFC", "NFD", "NFKD"]), text))
    return out


def strings(seed=1, randoms=900):
    rng = random.Random(seed)
    out = ["", " ", "a", "\0", "a\0b", "\0\0 \0", "\x7f", "\ufffd", "\uffff", "\U0010ffff"]
    out += PROSE + EMOJI + SPACES + MARKS + SPECIALS
    out += [p for text in PROSE for p in prefixes(text)]
    out += [word for text in PROSE for word in text.split()[:6]]
    out += [" " + text + "\n" for text in PROSE] + [text.upper() for text in PROSE]
    out += [a + b for a in SPACES for b in (SPACES[0], SPACES[4], "x", "1 ")]
    out += ["x" + s * n + "y" for s in SPACES for n in (1, 2, 7)]
    out += [c * n for c in "a 1'\n!é中😀" for n in (2, 3, 4, 9, 40, 300)]
    out += ["".join(rng.choice(EMOJI) for _ in range(n)) for n in range(1, 8)]
    out += [chr(c) for c in range(1, 32)] + ["a" + chr(c) + " b" for c in range(0x7F, 0xA1)]
    out += [a + s + b for s in SPECIALS for a, b in (("", "x"), ("x", ""), (" ", " "), ("x \n", "\n y"), ("é", "é"))]
    out += ["".join(SPECIALS), " ".join(SPECIALS), "<s><s>  <s>", "<|im_start|>user\nHi<|im_end|>\n"]
    out += unicode_samples(rng) + normalization_strings(rng, 120) + random_strings(rng, randoms)
    return out
