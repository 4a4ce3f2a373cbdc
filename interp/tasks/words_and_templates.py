"""Word lists and sentence templates that the tasks and the training text of the embedded model share.

Pure data and a few pure functions, no imports beyond the standard library. Every word is a short, common English word, chosen
to be one token with a leading space in GPT-2 and in Llama tokenizers; a task still has to check that. In `interp-mini` every
word here, capitalised or not, is one token, and so is each number from 0 to 99.

Texts are ordinary English ("the store, John"): the tokenizer of `interp-mini` splits punctuation off, so the same text works on
any model. `interp-mini` was trained on these words and templates with other fillings; prompts are new, words and forms are not.
"""

import re

# People, places, things
NAMES = """Mary John Tom James Dan Anna Lisa Sarah David Peter Paul Mark Laura Kate Jack Adam Emma Alice Bob Jane Susan Henry
George Frank Simon Kevin Brian Eric Amy Sam Ben Max Luke Ryan Scott Alex Steve Carl Bill Ruth Rachel Julia Maria Grace Rose
Emily Helen Martin Daniel Robert William Joseph Andrew Matthew Justin Nick Jason Chris""".split()
"""First names for IOI, docstring-free stories and needles (57)."""

PLACES = """store park school garden station office library market hospital museum church beach kitchen house shop farm hotel
theater bar lake river bank club gym""".split()
"""Places that follow "the" (24)."""

OBJECTS = """drink ring book ball cup key letter gift pen box hat card phone picture knife map bag watch bottle coin stick toy
flag bell""".split()
"""Things that can be given; all take "a" (24)."""

NOUNS = """cup pen book ball box hat key bag plate shirt lamp chair table bottle ring car phone clock card towel coat brush
pencil candle""".split()
"""Things that have a colour, for colored objects; all take "a" (24)."""

COLORS = "red blue green yellow black white brown purple pink gray gold silver".split()
"""Colours; all take "a" (12)."""

PRONOUNS = "I you he she it we they".split()
"""Subjects for filler text (7)."""

# Facts about the real world: the same prompts work on GPT-2 and Llama
COUNTRIES = {
    "France": ("Paris", "French", "Europe"),
    "Germany": ("Berlin", "German", "Europe"),
    "Italy": ("Rome", "Italian", "Europe"),
    "Spain": ("Madrid", "Spanish", "Europe"),
    "England": ("London", "English", "Europe"),
    "Japan": ("Tokyo", "Japanese", "Asia"),
    "China": ("Beijing", "Chinese", "Asia"),
    "Russia": ("Moscow", "Russian", "Europe"),
    "Egypt": ("Cairo", "Arabic", "Africa"),
    "Greece": ("Athens", "Greek", "Europe"),
    "Portugal": ("Lisbon", "Portuguese", "Europe"),
    "Austria": ("Vienna", "German", "Europe"),
    "Poland": ("Warsaw", "Polish", "Europe"),
    "Sweden": ("Stockholm", "Swedish", "Europe"),
    "Norway": ("Oslo", "Norwegian", "Europe"),
    "Denmark": ("Copenhagen", "Danish", "Europe"),
    "Finland": ("Helsinki", "Finnish", "Europe"),
    "Hungary": ("Budapest", "Hungarian", "Europe"),
    "Turkey": ("Ankara", "Turkish", "Asia"),
    "Iran": ("Tehran", "Persian", "Asia"),
    "Iraq": ("Baghdad", "Arabic", "Asia"),
    "Thailand": ("Bangkok", "Thai", "Asia"),
    "Korea": ("Seoul", "Korean", "Asia"),
    "Syria": ("Damascus", "Arabic", "Asia"),
    "Ukraine": ("Kiev", "Ukrainian", "Europe"),
    "Ireland": ("Dublin", "Irish", "Europe"),
    "Lebanon": ("Beirut", "Arabic", "Asia"),
    "Libya": ("Tripoli", "Arabic", "Africa"),
}
"""Country -> (capital, a language spoken there, continent); 28 countries. Kiev is spelled as older models know it."""

FACT_TEMPLATES = {
    "capital": (
        "The capital of {subject} is",
        "The capital city of {subject} is",
        "In {subject}, the capital is",
        "Question: what is the capital of {subject}? Answer:",
        "The government of {subject} sits in the city of",
        "A person who visits the capital of {subject} is in",
    ),
    "language": (
        "The language of {subject} is",
        "People in {subject} speak",
        "In {subject}, people write in",
        "Question: what is the language of {subject}? Answer:",
        "A child in {subject} learns to speak",
        "The old books of {subject} are written in",
    ),
    "continent": (
        "The continent of {subject} is",
        "{subject} is a country in",
        "On a map, {subject} is part of",
        "Question: where in the world is {subject}? Answer: in",
        "A person who lives in {subject} lives in",
        "The land of {subject} lies in",
    ),
}
"""Relation -> sentence forms; the answer is the next word."""

RELATIONS = tuple(FACT_TEMPLATES)


def fact_answer(country: str, relation: str) -> str:
    """The word that completes a fact, such as `fact_answer("France", "capital") == "Paris"`."""
    return COUNTRIES[country][RELATIONS.index(relation)]


def is_held_out(country: str, relation: str, template: int) -> bool:
    """Whether `interp-mini` never saw this country in this sentence form: one cell in six, one form per (country, relation).
    The fact itself was seen in the five other forms, and the form with other countries; their combination is new."""
    index = list(COUNTRIES).index(country) + 2 * RELATIONS.index(relation)
    return index % len(FACT_TEMPLATES[relation]) == template


OPPOSITES = {
    "hot": "cold", "big": "small", "up": "down", "old": "new", "fast": "slow", "high": "low", "open": "closed",
    "good": "bad", "long": "short", "rich": "poor", "hard": "soft", "left": "right", "early": "late", "day": "night",
    "light": "dark", "strong": "weak", "wet": "dry", "full": "empty", "first": "last", "happy": "sad",
}  # fmt: skip
"""Word -> its opposite, used in both directions (20 pairs)."""

SEQUENCES = (
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split(),
    "January February March April May June July August September October November December".split(),
    "one two three four five six seven eight nine ten".split(),
    "first second third fourth fifth".split(),
)
"""Ordered words, for successor lists."""

# Indirect object identification. {a} and {b} are two names in order of mention, {s} the repeated one: s = a gives the
# ABAB... order "A B ... A", s = b gives "A B ... B"; the answer is the name that is not repeated. {place}, {object} are free.

IOI_TEMPLATES = (
    "When {a} and {b} went to the {place}, {s} gave a {object} to",
    "After {a} and {b} came to the {place}, {s} handed a {object} to",
    "While {a} and {b} were at the {place}, {s} offered a {object} to",
    "{a} and {b} met at the {place}, and then {s} gave a {object} to",
    "Yesterday {a} and {b} walked to the {place}, where {s} showed a {object} to",
    "Then {a} and {b} had a long talk at the {place}, and {s} sent a {object} to",
    "Since {a} and {b} worked together at the {place}, {s} sold a {object} to",
    "{a} and {b} found a {object} at the {place}, and {s} gave it to",
    "Because {a} was late, {b} waited at the {place}. Later {s} passed a {object} to",
    "One day {a} saw {b} near the {place}. So {s} lent a {object} to",
    "{a} sat next to {b} in the {place}. After a while {s} brought a {object} to",
    "There was a {object} in the {place}. {a} and {b} looked at it, and {s} gave it to",
    "In the {place}, {a} and {b} played a game. In the end {s} threw a {object} to",
    "The {place} was full when {a} and {b} came in, so {s} left the {object} with",
    "Before {a} and {b} left the {place}, {s} wrote a letter to",
    "Last night {a} asked {b} for help at the {place}, and {s} gave a {object} to",
    "At the {place} {a} and {b} had a fight, but {s} said sorry to",
    "Friends told {a} and {b} about the {place}, and {s} bought a {object} for",
)

# Greater-than
YEAR_NOUNS = """war project plan trip program deal fight peace tour mission trial search crisis study work rule march battle
game season""".split()
"""Things that last, for "The {noun} lasted from the year 1732 to the year 17" (20)."""

GREATER_THAN_TEMPLATE = "The {noun} lasted from the year {century}{start} to the year {century}"
"""The next token is any two-digit number above {start}; use starts from 02 to 97 and centuries from CENTURIES."""

CENTURIES = (11, 12, 13, 14, 15, 16, 17, 18)
"""First two digits of the years."""

# Docstring
PARAMETERS = """name size file data key value path list index text line count order page level user type mode code date time
state field label note table group unit point start stop width color shape load test event image word result""".split()
"""Parameter names, also used as the words of parameter descriptions (40)."""

FUNCTIONS = "run read write find make open build send move check save print sort call copy join".split()
"""Function names (16)."""

DOCSTRING_TEMPLATE = 'def {function}(self, {parameters}):\n"""{words}\n'
"""A signature and the first line of its docstring; descriptions follow."""

DOCSTRING_PARAMETER = "\n:param {name}: {words}"
"""One description; a prompt ends before the name. The described parameters follow each other as in the signature."""

# Needle in filler, and reading comprehension
NEEDLE_TEMPLATES = (
    "The secret word of {name} is {word}.",
    "The secret word for {name} is {word}.",
    "The secret word that {name} has is {word}.",
)
"""Sentences that hide a word under a name."""

NEEDLE_QUESTIONS = (
    "What is the secret word of {name}? Answer:",
    "Question: what is the secret word of {name}? Answer:",
    "So the secret word of {name} is",
)

ADJECTIVES = """quiet warm small old new tall green cold long clean bright heavy young simple fresh busy""".split()
"""Adjectives of filler sentences (16)."""

ANIMALS = "dog cat horse bird fish cow pig wolf bear lion".split()
"""Subjects of filler sentences (10)."""

VERBS = "sees likes wants needs finds loves follows watches hears knows".split()
"""Verbs of filler sentences (10)."""

FILLER_WORDS = {
    "place": PLACES, "object": OBJECTS, "adjective": ADJECTIVES, "animal": ANIMALS, "verb": VERBS, "pronoun": PRONOUNS,
}  # fmt: skip
"""Words of filler sentences by slot, beside names."""

FILLER_TEMPLATES = (
    "The {animal} {verb} the {place}.",
    "The {adjective} {animal} {verb} a {object}.",
    "{name} {verb} the {adjective} {place}.",
    "The {place} is {adjective} in the morning.",
    "It is {adjective} and {adjective2} at the {place}.",
    "{name} was at the {place} with a {object}.",
    "There is a {object} near the {place}.",
    "The {animal} and the {animal2} sleep in the {place}.",
    "In the evening {pronoun} walk to the {adjective} {place}.",
    "A {object} was on the floor of the {place}.",
)
"""Sentences without information; each is 6 to 10 tokens in `interp-mini`."""

KEY_VALUE_TEMPLATE = "{key}: {value};"
"""One pair; pairs are joined by spaces, and the prompt ends with "{key}:". The answer is the next word."""

COLORED_QUESTIONS = (
    "What color is the {noun}? Answer:",
    "Question: what color is the {noun}? Answer:",
    "The color of the {noun} is",
    "The {noun} is",
)
"""Sentence forms after a list such as "On the table there is a red cup, a blue pen and a gold key."; answer = colour."""

COLORED_LISTS = ("On the table there is {items}.", "In the box there is {items}.", "{name} has {items}.", "I see {items}.")
"""Sentence forms; {items} is "a red cup, a blue pen and a gold key" (2 to 5 items, colours and nouns all different)."""


def listed(items: list[str]) -> str:
    """The items of a sentence: `listed(["a cup", "a pen", "a key"]) == "a cup, a pen and a key"`."""
    return ", ".join(items[:-1]) + " and " + items[-1]


# Steps that follow a plan: the plan is the only place where the order or the operation is written
ORDINALS = "first second third fourth".split()
CONTAINERS = "bag box jar cup bowl basket drawer pot".split()
ITEMS = "coins stones cards apples books balls rings keys".split()
OPERATIONS = ("add", "subtract")

# The pool for induction and key-value text
WORDS = """able above act age air arm army art aunt baby back ball band bank bar base bath bear beat bed bell belt bill bird bit
block blood blow board boat body bone book born bottom bowl box boy branch bread break bridge brother brush building bus butter
button cake call camp cap car card care carry cart case cat cause cell center chain chair chance change cheese chest chief child
choice circle city class clay clock cloth cloud coal coast coat code coffee coin column comb company copper copy cord corn
corner cotton count country course court cousin cover cow cream crime crop crowd cry cup current curve dance danger daughter
deal death debt desk detail device dinner dirt disk dog door dream dress drop dust ear earth east edge egg electric end engine
error event expert eye face fact fall family farm farmer father fear feather field fight finger fire fish flame flat flight
floor flow flower fly fog fold food foot force forest form frame friend front fruit fuel game garden gas gate girl glass glove
goat grain grass grip group growth guide gun hair hall hammer hand harbor harm hat heart heat hill history hole home hook hope
horn horse host hour human ice idea industry ink iron island jacket jail jelly jewel join joke judge juice jump kick king kiss
knee knife knot lady lamp land language laugh law layer lead leaf leather leg lesson level library lift line lip liquid list
lock log look loss love machine mail male mask mass match meal measure meat metal middle milk mind mine minute mist money monkey
moon morning mother motion mountain mouth music nail name nation neck need needle nerve net news noise north nose number nut oil
oven owner page pain paint pair palm pan paper parent part party paste path pen pencil pepper pet phone picture pig pin pipe
pipe pistol pit place plane plant plate play pocket point poison pool port pot powder power price prince prison profit pump
purpose push queen question rail rain range rat rate ray reason record reward rhythm rice ride ring river road rock rod roll
roof room root rope rub ruler sail salt sand scale school science screen screw sea seat seed sense shade shake shame sharp sheep
shelf ship shirt shock shoe shore shoulder side sign silk sister size skin skirt sky sleep slip slope smell smile smoke snake
snow soap society sock soil soldier son song sound soup south space spade spark speech spice sponge spoon spot spring square
stage stamp star statement steam steel stem step stitch stone stop storm story stove straw stream street stretch string
structure sugar suit summer sun surface surprise system tail talk taste tax teacher temple tent thread throat thumb thunder
ticket tin toe tongue tool tooth top touch tower town trade train tray tree trick truck turn twist uncle valley value verse
vessel view voice walk wall wash waste watch water wave wax week weight west wheel whip wind window wine wing winter wire woman
wood wool word world worm wound yard year""".split()
WORDS = list(dict.fromkeys(WORDS))
"""Words without any role, for induction, key-value pairs and needles (about 480)."""

# For real vocabularies; interp-mini was not trained on these forms and lists, and lacks some of the words
PRONOUN_NAMES = {
    "she": """Mary Anna Lisa Sarah Laura Kate Emma Alice Jane Susan Amy Ruth Rachel Julia Maria Grace Rose Emily Helen""".split(),
    "he": """John Tom James Dan David Peter Paul Mark Jack Adam Bob Henry George Frank Simon Kevin Brian Eric Ben Luke Ryan Scott
    Steve Carl Bill Martin Daniel Robert William Joseph Andrew Matthew Justin Jason""".split(),
}
"""Pronoun -> names that usually go with it (19 and 34)."""

PRONOUN_TEMPLATES = (
    "When {name} came home from the {place},",
    "When {name} walked to the {place},",
    "After {name} left the {place},",
    "When {name} found a {object} at the {place},",
    "While {name} was at the {place},",
    "After {name} took the {object} to the {place},",
)
"""Sentence forms that go on with a pronoun."""

PLURALS = {
    "key": "keys", "book": "books", "card": "cards", "ball": "balls", "ring": "rings", "coin": "coins", "stone": "stones",
    "apple": "apples", "table": "tables", "chair": "chairs", "lamp": "lamps", "bottle": "bottles", "picture": "pictures",
    "letter": "letters", "tree": "trees", "car": "cars", "house": "houses", "wall": "walls", "door": "doors",
    "window": "windows", "boat": "boats", "dog": "dogs", "cat": "cats", "bird": "birds", "horse": "horses", "boy": "boys",
    "girl": "girls", "teacher": "teachers", "doctor": "doctors", "farmer": "farmers",
}  # fmt: skip
"""Singular -> plural (30)."""

VERB_FORMS = ("is", "was", "has"), ("are", "were", "have")
"""Verbs of a singular and of a plural subject."""

AGREEMENT_PREPOSITIONS = ("near", "behind", "beside")
"""What stands between a subject and a noun of the other number."""

COLORED_STATEMENTS = ("The {noun} is",)
"""Sentence forms that state a colour."""

ANTONYM_TEMPLATE = "The opposite of {word} is"
"""The answer is the next word; solved examples end in a full stop."""

# Everything that may occur in a text
FUNCTION_WORDS = """The the a A an and of to in is are was were at on with for from it It there There not but that which who
What what Question Answer color Color secret word So so then Then year how many where Where when Plan Step start follow has had
have look lists Story moves moved puts takes took went goes home now Now self def param return first total Sum sum let Let plus
minus equals left more opposite Opposite After after The the comes come go next""".split()
"""Words the sentence forms of the training text use beyond the lists above."""

PUNCTUATION = [*".,:;?()=+-#\"'!*/", '"""', "->"]
NUMBERS = [str(number) for number in range(10)] + [f"{number:02d}" for number in range(100)]
NEWLINE = "<nl>"
TOKEN_PATTERN = r'<nl>|"""|->|[A-Za-z]+|[0-9]{1,2}|[^\sA-Za-z0-9]'  # noqa: S105
"""How `interp-mini` cuts a text: words, one or two digits, marks; a newline is the token <nl>."""


def split(text: str) -> list[str]:
    """The tokens of a text as `interp-mini` sees them, without `<bos>`."""
    return re.findall(TOKEN_PATTERN, text.replace("\n", " <nl> "))


def vocabulary() -> list[str]:
    """Every token of `interp-mini` except its special ones, in a fixed order and without repeats."""
    forms = [*IOI_TEMPLATES, GREATER_THAN_TEMPLATE, *NEEDLE_TEMPLATES, *NEEDLE_QUESTIONS, *FILLER_TEMPLATES]
    forms += [*COLORED_QUESTIONS, *COLORED_LISTS, *(form for group in FACT_TEMPLATES.values() for form in group)]
    found = [NEWLINE, *PUNCTUATION, *NUMBERS, *FUNCTION_WORDS]
    for form in forms:
        found += split(re.sub(r"\{\w+\}", " ", form))
    for words in (NAMES, PLACES, OBJECTS, NOUNS, COLORS, PRONOUNS, YEAR_NOUNS, PARAMETERS, FUNCTIONS, ADJECTIVES, ANIMALS):
        found += words
    for words in (VERBS, ORDINALS, CONTAINERS, ITEMS, OPERATIONS, *SEQUENCES, *OPPOSITES.items(), WORDS):
        found += words
    for country, answers in COUNTRIES.items():
        found += [country, *answers]
    return list(dict.fromkeys(found))
