"""The words `generate.py` draws from: names, companies, topics and what people say about them.

In a sentence, `{customer}` and `{other}` are fixed for a recording and `{subject}` for a topic;
every other name in braces is drawn anew each time, from the recording's speakers, the topic's own
lists or `DRAWN`. A digit asks for another value than the sentence has already: `{site}`, `{site2}`.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Topic:
    """Something a call can be about, and the nouns that belong to it."""

    subject: str
    thing: tuple[str, ...]
    trouble: tuple[str, ...]
    cause: tuple[str, ...]
    remedy: tuple[str, ...]
    measure: tuple[str, ...]


# Laid out by hand: one name a line would be pages.
# fmt: off
FIRST_NAMES: Final = (
    "Abeni", "Adaeze", "Agnete", "Akira", "Alasdair", "Amaru", "Anneliese", "Anwar", "Arjun",
    "Astrid", "Ayodele", "Bahar", "Basil", "Beatrix", "Bogdan", "Branwen", "Caoimhe", "Carlota",
    "Chidi", "Cosima", "Dalia", "Dmitri", "Dorothea", "Eamon", "Ebele", "Eleni", "Emeka",
    "Esperanza", "Farid", "Femi", "Fintan", "Florian", "Gethin", "Giulia", "Goran", "Hamza",
    "Hanako", "Hedda", "Hiroshi", "Ibrahim", "Ilse", "Indira", "Ines", "Ivo", "Jadwiga", "Jamal",
    "Jiho", "Joaquín", "Kalinda", "Katya", "Kofi", "Lakshmi", "Laszlo", "Leocadia", "Linnea",
    "Lwazi", "Magnus", "Malika", "Mei", "Milan", "Moana", "Naledi", "Nasrin", "Niamh", "Nikolai",
    "Obinna", "Odette", "Oskar", "Paloma", "Parvati", "Petra", "Quentin", "Rafael", "Rania",
    "Renske", "Roksana", "Rosalind", "Samir", "Saskia", "Seo-yeon", "Shirin", "Siobhán", "Stellan",
    "Sunita", "Tadeusz", "Tamsin", "Thandiwe", "Tobias", "Ulrike", "Umar", "Valentina", "Vesna",
    "Viggo", "Wanjiru", "Wilhelmina", "Xiomara", "Yannick", "Yasmin", "Zainab", "Zoltan",
)
LAST_NAMES: Final = (
    "Abernathy", "Adomako", "Aguirre", "Almási", "Andersson", "Bakshi", "Balogun", "Bartosz",
    "Belmonte", "Bergström", "Bhatt", "Blackwood", "Brennan", "Byrne", "Cardoso", "Castellanos",
    "Chaudhry", "Chukwu", "Costigan", "Czerny", "Danjuma", "Delacroix", "Desai", "Dimitrov",
    "Dlamini", "Drummond", "Edevane", "Eriksen", "Fairweather", "Farouk", "Fontaine", "Gallagher",
    "Georgiou", "Ghosh", "Guerrero", "Haraldsen", "Hashimoto", "Hollis", "Horvath", "Ishikawa",
    "Ivanova", "Jankowski", "Jimenez", "Kamau", "Kapoor", "Karlsson", "Keating", "Khoury", "Kimura",
    "Kovač", "Lindgren", "Lombardi", "Maduro", "Mahlangu", "Marchetti", "Mbeki", "McAllister",
    "Mensah", "Montague", "Moreau", "Murakami", "Nakagawa", "Ndiaye", "Nguyen", "Novak", "O'Dowd",
    "Obi", "Okeke", "Ostrowski", "Pacheco", "Papadakis", "Penhaligon", "Petrov", "Quispe", "Rahman",
    "Ramaswamy", "Reinholt", "Rosario", "Saarinen", "Sandoval", "Sato", "Schreiber", "Sithole",
    "Sørensen", "Takahashi", "Tembo", "Thackeray", "Tremblay", "Uzun", "Valdés", "Van-Houten",
    "Varga", "Wanjala", "Whitlock", "Yamada", "Yilmaz", "Zamora", "Zielinski",
)
COMPANY_STEMS: Final = (
    "Ashcombe", "Birchvale", "Blackmere", "Brantholm", "Calderwick", "Carnforth-Hey", "Copperleigh",
    "Dunmarrow", "Eastlow", "Fallowden", "Farrowby", "Glenhask", "Greywether", "Hartsmere",
    "Hazelrigg", "Ironbeck", "Kestrelby", "Langmoor", "Larchfield", "Lowenstow", "Marlgate",
    "Mossingham", "Netherby", "Northwyke", "Oldbarrow", "Pinnerdale", "Quennell", "Ravensholt",
    "Redmarsh", "Rookhaven", "Saltersby", "Sedgewater", "Silverburn", "Stonehithe", "Tarnbrook",
    "Thistlecombe", "Underhay", "Wexholme", "Whinfell", "Wyverstone",
)
# fmt: on
COMPANY_KINDS: Final = (
    "Logistics",
    "Foods",
    "Building Supply",
    "Medical",
    "Textiles",
    "Paper",
    "Energy Services",
    "Furniture",
    "Brewing",
    "Pharmacy Group",
    "Instruments",
    "Housing",
    "Insurance",
    "Credit Union",
    "Marine",
    "Nurseries",
)
CALL_KINDS: Final = (
    "discovery call",
    "demo",
    "pricing call",
    "contract review",
    "kickoff",
    "weekly check-in",
    "support escalation",
    "incident review",
    "quarterly business review",
    "roadmap session",
    "renewal call",
    "security review",
    "technical deep dive",
    "training follow-up",
)

TOPICS: Final = (
    Topic(
        "the nightly import",
        (
            "the supplier file",
            "the order file",
            "the column mapping",
            "the re-import",
            "the parser",
        ),
        ("drops rows without saying so", "arrives after the shift starts", "counts returns twice"),
        ("a renamed column", "a second header line", "decimal commas", "a truncated upload"),
        ("validate before loading", "mail the rejected rows", "load only what was rejected"),
        ("rejected rows", "late files", "manual corrections"),
    ),
    Topic(
        "pricing",
        ("the per-seat price", "the volume tier", "the implementation fee", "the price cap"),
        ("is above what finance approved", "doubles in the second year", "has no ceiling"),
        ("an old rate card", "seats nobody uses", "a currency clause", "a discount that expired"),
        ("sign for three years", "spread the fee over two invoices", "drop the unused seats"),
        ("seats in use", "cost per order", "discount points"),
    ),
    Topic(
        "single sign-on",
        ("the identity provider", "the group mapping", "the session length", "the metadata file"),
        ("locks out the night shift", "signs people in twice", "keeps leavers' accounts alive"),
        ("a clock that runs ahead", "an expired certificate", "a group name with an accent"),
        ("shorten the sessions", "rotate the certificate early", "test with five people"),
        ("failed sign-ins", "orphaned accounts", "password resets"),
    ),
    Topic(
        "the mobile app",
        ("the scanner screen", "the offline mode", "the location ping", "the photo upload"),
        ("empties the battery by noon", "loses photos in the basement", "needs eleven taps"),
        ("a background refresh", "the older handsets", "a retry with no limit", "huge images"),
        ("ping less often", "shrink the photos on the device", "keep a local outbox"),
        ("crash-free sessions", "minutes per stop", "phones swapped a month"),
    ),
    Topic(
        "reporting",
        ("the monthly summary", "the margin report", "the export", "the regional dashboard"),
        ("disagrees with the ledger", "takes six minutes to open", "mixes two time zones"),
        ("refunds booked twice", "a join on the product name", "a cache from last week"),
        ("agree on one definition", "refresh it hourly", "hand out the raw files"),
        ("hours spent on reports", "open discrepancies", "dashboards nobody opens"),
    ),
    Topic(
        "the renewal",
        ("the notice period", "the auto-renewal clause", "the exit terms", "the credit"),
        ("comes before the budget round", "was never explained to the board", "feels one-sided"),
        ("a bad quarter for support", "a competitor's free migration", "the new finance director"),
        ("name one engineer for them", "add a way out after six months", "hold the price a year"),
        ("active users", "open tickets", "executive meetings"),
    ),
    Topic(
        "response times",
        ("the search page", "the order screen", "the stock lookup", "the overnight batch"),
        (
            "times out after lunch",
            "is fine on one site and slow on the other",
            "gets slower weekly",
        ),
        ("a missing index", "a lock held by the export", "too many connections", "a cold cache"),
        ("add the index at night", "move the export to a replica", "pool the connections"),
        ("searches over a second", "timeouts a day", "slow queries"),
    ),
    Topic(
        "onboarding",
        ("the pilot site", "the training plan", "the cut-over weekend", "the address clean-up"),
        ("has slipped twice", "depends on one person", "clashes with stocktaking"),
        ("a holiday nobody mentioned", "the label printers", "an unsigned data agreement"),
        ("go live with one site", "run both systems for three nights", "train the shift leads"),
        ("trained users", "open setup tasks", "days to first order"),
    ),
    Topic(
        "data protection",
        (
            "the processing agreement",
            "the retention rule",
            "the sub-processor list",
            "the audit log",
        ),
        ("is thirteen months old", "keeps more than it should", "has no owner"),
        ("free-text notes", "a backup nobody deletes", "a vendor added in spring"),
        ("delete after sixty days", "replace free text with a list", "review it each quarter"),
        ("open findings", "days to answer a request", "access reviews"),
    ),
    Topic(
        "the warehouse rollout",
        ("the loading bay screen", "the pick list", "the label printer", "the cycle count"),
        ("sends pickers the long way round", "prints blank labels", "shows stock that is gone"),
        ("a wrong bin code", "wireless gaps behind the racking", "units mixed up with cases"),
        ("walk the route with the foreman", "print from a second queue", "count aisle by aisle"),
        ("picks an hour", "miscounts", "trucks leaving late"),
    ),
    Topic(
        "the integration",
        ("the webhook", "the partner interface", "the retry queue", "the sandbox"),
        ("delivers events out of order", "fails silently at weekends", "sends each event twice"),
        ("a proxy in between", "a key that was rotated", "a rate limit nobody documented"),
        ("sign every message", "make the handler idempotent", "replay from the log"),
        ("failed deliveries", "duplicate events", "replayed messages"),
    ),
    Topic(
        "the support queue",
        ("the night shift", "the escalation path", "the knowledge base", "the first answer"),
        ("bounces between two teams", "takes a day too long", "gets closed before it is solved"),
        ("two people on leave", "a macro that answers everything", "unclear severities"),
        ("ask whether they can operate", "pair new people for a week", "phone instead of mail"),
        ("hours to first answer", "reopened tickets", "escalations"),
    ),
    Topic(
        "hiring",
        ("the senior role", "the interview loop", "the on-call load", "the second position"),
        ("has been open since spring", "scares off good people", "rests on two shoulders"),
        ("a salary band from last year", "a slow panel", "a job text that says nothing"),
        ("decide within a week", "show the real work", "start in the new year"),
        ("candidates in process", "days to an offer", "nights on call"),
    ),
    Topic(
        "the database migration",
        ("the shared cluster", "the rehearsal", "the rollback script", "the restore test"),
        ("runs over its window", "leaves two tables behind", "fills the disk"),
        ("a long transaction", "a sequence nobody moved", "a replica that fell behind"),
        ("begin with a small tenant", "freeze writes for ten minutes", "rehearse it on a copy"),
        ("failed rehearsals", "minutes of downtime", "tenants moved"),
    ),
    Topic(
        "the forecast",
        ("the demand curve", "the seasonal factor", "the safety stock", "the reorder point"),
        ("missed the heat wave", "overshoots on holidays", "ignores promotions"),
        ("two years of odd history", "a promotion entered late", "one customer's bulk order"),
        ("weight recent weeks more", "let planners overrule it", "forecast by region"),
        ("missed forecasts", "days of stock", "write-offs"),
    ),
    Topic(
        "invoicing",
        ("the credit note", "the tax code", "the dunning run", "the purchase order field"),
        ("goes to a mailbox that bounces", "rounds the wrong way", "blocks the payment"),
        ("a changed legal name", "two accounts for one company", "a missing cost centre"),
        ("merge the accounts", "send a corrected copy today", "make the field mandatory"),
        ("overdue invoices", "days to payment", "disputed lines"),
    ),
)

ENDINGS: Final = {1: "st", 2: "nd", 3: "rd"}
DRAWN: Final[dict[str, tuple[str, ...]]] = {
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"),
    "month": ("September", "October", "November", "December", "January", "February", "March"),
    "date": tuple(f"{n}{'th' if 10 < n < 20 else ENDINGS.get(n % 10, 'th')}" for n in range(1, 29)),
    "n": tuple(str(n) for n in range(2, 98)),
    "big": tuple(f"{n:,}" for n in range(1_013, 98_000, 331)),
    "small": ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "a dozen"),
    "span": ("a day", "two days", "a week", "ten days", "a fortnight", "a month", "six weeks"),
    "site": (
        "Aldwick",
        "Brackley Road",
        "the north depot",
        "Corrie Street",
        "Dunhelm",
        "the harbour site",
        "Eskdale",
        "Fenway Park Lane",
        "the old mill",
        "Gorsehill",
        "Highmoor",
        "the airport shed",
        "Inchford",
        "Kingsbarrow",
        "the ring road branch",
        "Lintown",
    ),
    "team": (
        "finance",
        "the platform team",
        "legal",
        "the night shift",
        "customer success",
        "procurement",
        "the data team",
        "operations",
        "the regional managers",
        "security",
        "the works council",
        "the product team",
    ),
    "aside": (
        "the holiday rota",
        "what happened at the trade fair",
        "the office move",
        "the new badge readers",
        "last week's survey",
        "who takes notes from now on",
    ),
    "artifact": (
        "a one-page summary",
        "the revised plan",
        "a list of open points",
        "the numbers by site",
        "a short recording",
        "a draft of the clause",
        "the test results",
        "a cost estimate",
        "the checklist",
        "an owner for each step",
    ),
}

OPENINGS: Final = (
    "Okay, I think everyone is here. Mostly {subject} today, and if there is time {aside}.",
    "Morning all. I've got {n} minutes before my next one, so let's start with {subject}.",
    "Thanks for joining. Last time we stopped in the middle of {subject}; let's finish that.",
    "Before we begin, {team} asked me to record this, they couldn't come. First point: {subject}.",
    "Right. {customer} sent {small} questions ahead of the call, nearly all of them on {subject}.",
    "Hello, can you hear me? Good. I promised {artifact} for today and I have it, more or less.",
)
TRANSITIONS: Final = (
    "Can we move to {subject}? I have {small} notes on it and {n} minutes left.",
    "That brings me to {subject}, which {team} has been asking about since {month}.",
    "Next on my list is {subject}. It came up at {site} again on {day}.",
    "If nobody minds I'd jump to {subject}, because {speaker} has to leave early.",
    "Before I forget, {subject}. {customer} wrote about it twice this week.",
    "Let's park that. The other thing is {subject}, and I think we disagree there.",
)
QUESTIONS: Final = (
    "What exactly happens when {thing} {trouble}? Who sees it first, {team} or the customer?",
    "Is it true that {thing} {trouble}, or is that only at {site}?",
    "How sure are we that it's {cause}? In {month} we said the same and it was {cause2}.",
    "What would it take to {remedy} before the end of {month}?",
    "And who owns {thing} after go-live? I heard {team}, and then I heard {team2}.",
    "Do we have a number for {measure}? The last one I saw was {n}, and that's from {month}.",
    "If we {remedy}, what does that do to {thing}? I don't want to fix one and break the other.",
    "Could {customer} live with it until {month} if we {remedy} at {site} first?",
    "Have you asked {team} about it? They had {cause} at {site} a while ago.",
    "Sorry, which one are we talking about, {thing} or {thing2}?",
    "How long has it been like that? I only noticed on {day}.",
    "What did {other} do? They had the same with {thing}, as far as I remember.",
)
ACCOUNTS: Final = (
    "On {day} {thing} went wrong at {site} again. It {trouble}, and we lost about {n} minutes.",
    "I spent {span} on this. It comes down to {cause}, and to a smaller part {cause2}.",
    "At {site} it's fine. At {site2} {thing} {trouble}, nobody had told us, for {span}.",
    "The short version is that {thing} {trouble} whenever there's {cause}.",
    "{team} traced it to {cause} on {day}; I've seen the notes and I believe them.",
    "It isn't {cause}, we ruled that out. What's left is {cause2}, and we can test that in {span}.",
    "My understanding is that {thing} was set up by {team} in a hurry and never looked at since.",
    "I checked with {speaker}: {thing} {trouble}, but only for accounts opened before {month}.",
)
FIGURES: Final = (
    "We looked at {big} records and in {n} percent of them {thing} {trouble}.",
    "In {month} we had {n} cases, last month {n2}, and this month {n3} so far.",
    "For {customer} the cost is roughly {big} a quarter, if you count {measure} properly.",
    "They run {big} orders through {thing} on a normal {day}, and double that in {month}.",
    "{measure} went from {n} to {n2} after we decided to {remedy}, and it has stayed there.",
    "The contract says {n} days, {team} says {n2}, and in practice it has been {n3}.",
)
PROPOSALS: Final = (
    "I'd {remedy}, starting with {site}, and look at {measure} again after {span}.",
    "Let's {remedy} first. If there are still more than {n} {measure} by {month}, we {remedy2}.",
    "Could we simply {remedy}? It's {small} days of work and nobody has to be retrained.",
    "Let's give {team} {artifact} by {day} and then {remedy}.",
    "What if we {remedy}? {other} did that and {measure} fell by {n} percent.",
    "We can {remedy} without asking anyone, but for anything more I need {team}.",
    "I would rather {remedy} now than explain in {month} why we didn't.",
    "Two options. Either we {remedy}, which costs about {big}, or we {remedy2} and wait {span}.",
)
DOUBTS: Final = (
    "I don't agree. If we {remedy}, {thing} still {trouble}, just later in the day.",
    "Hm. {team} will say no, they already have {n} open points with {customer}.",
    "We tried that at {site}. It held for {span} and then it was {cause} all over again.",
    "I'd be careful with that number. {n} sounds good, but it leaves out {site2}.",
    "That's what we said in {month}. I'd like to see {artifact} before I promise it to anyone.",
    "Maybe, but {customer} doesn't care about {measure}, they care that {thing} {trouble}.",
    "With respect, that's {span} of work for {small} users.",
    "It's not wrong, it's just not urgent. {thing} is urgent.",
)
ANSWERS: Final = (
    "Yes, with one condition: {team} has to see {artifact} before {day}.",
    "No. Not before {month}, and I'd rather say so today.",
    "Partly. {site} is done, {site2} needs another {span}.",
    "About {n}, give or take. I can send {artifact} after the call.",
    "That was {speaker}'s idea, and it works as long as everybody remembers {cause}.",
    "It depends on {thing}. If that's stable by {day}, then yes.",
    "I asked {team}. They said {small} people, {span}, and please not in {month}.",
    "Honestly I don't know. My guess would be {cause}, and I'd bet {n} to one on it.",
    "{other} pays for it, {customer} gets it for free until {month}, that's the whole story.",
)
DECISIONS: Final = (
    "So we {remedy}, {speaker} owns it, and we look at {measure} on {day} the {date}.",
    "Decided then: {remedy} at {site} by the {date} of {month}, the others afterwards.",
    "I'm writing down: {team} delivers {artifact} by {day}, and {speaker} tells {customer}.",
    "Fine. We don't do it this quarter, we {remedy} instead, and I'll explain it to {team}.",
    "Okay, action for me: {artifact} to {customer} by the {date}. For {speaker}: {thing}.",
    "Then the target is {n} for {measure} by the end of {month}. If we miss it, we {remedy2}.",
)
REACTIONS: Final = (
    "Right.",
    "Okay, that helps.",
    "Mm, go on.",
    "Wait, say that number again?",
    "{n}, I said.",
    "Agreed.",
    "That's higher than I thought.",
    "Yes, exactly, {site}.",
    "Sorry, I was muted. I meant {thing}.",
    "Fair enough.",
    "I'll take that one.",
    "Not again.",
    "Since {month}, yes.",
    "Good point, I hadn't thought of {team}.",
)
CLOSINGS: Final = (
    "That's time. I'll send {artifact} tonight, and we speak again on {day} the {date}.",
    "Let me read it back: {speaker} has {thing}, I have {artifact}, {team} gets told by {day}.",
    "Good. {n} minutes, that's better than last time. Thanks, everyone.",
    "If something comes up at {site}, phone me, don't write. Bye, all.",
)
