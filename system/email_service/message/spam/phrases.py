"""What is written in spam: phrases of a few kinds, in several languages.

One phrase means nothing; a kind counts when enough of its phrases are there. Words are looked up, not searched for: the
text is split once, and only phrases whose rarest word is in it are compared.
Callers: ``content``.
"""

from __future__ import annotations

from typing import Final

#: Kind -> phrases in lower case, words apart by one space, without punctuation.
PHRASES: Final[dict[str, tuple[str, ...]]] = {
    "money": (
        "million dollars", "million usd", "million euros", "million pounds", "lottery", "next of kin",
        "inheritance", "beneficiary", "wire transfer", "bank draft", "unclaimed funds", "atm card", "late client",
        "deceased", "transfer the sum", "100 risk free", "get rich", "earn money", "extra income", "easy cash",
        "double your", "guaranteed returns", "guaranteed profit", "make money", "work from home", "no credit check",
        "debt relief", "compensation fund", "cash prize", "you have won", "you won", "winning number",
        "western union", "gift card", "gift cards", "trading bot", "passive income", "financial freedom",
        "millionen euro", "erbschaft", "lotteriegewinn", "sie haben gewonnen", "geld verdienen", "schnelles geld",
        "ohne schufa", "sofortkredit", "passives einkommen", "gewinnbenachrichtigung", "millions d euros",
        "héritage", "vous avez gagné", "gagner de l argent", "loterie", "prêt rapide", "millones de dólares",
        "millones de euros", "herencia", "ha ganado", "lotería", "ganar dinero", "dinero fácil", "milioni di euro",
        "eredità", "hai vinto", "lotteria", "guadagnare soldi", "milhões de dólares", "herança", "você ganhou",
        "ganhar dinheiro", "dinheiro fácil", "вы выиграли", "наследство", "лотерея", "заработок", "быстрый кредит",
        "пассивный доход", "миллион долларов", "miljoen euro", "erfenis", "u heeft gewonnen", "wygrałeś",
        "milionów dolarów", "spadek",
    ),
    "urgency": (
        "act now", "urgent", "immediately", "within 24 hours", "within 48 hours", "last chance", "final notice",
        "expires today", "limited time", "don t delay", "as soon as possible", "final warning",
        "before it is too late", "dringend", "sofort handeln", "innerhalb von 24 stunden", "letzte mahnung",
        "letzte chance", "umgehend", "dernier avis", "sous 24 heures", "immédiatement", "dernière chance",
        "urgente", "en 24 horas", "inmediatamente", "última oportunidad", "último aviso", "entro 24 ore",
        "immediatamente", "ultimo avviso", "ultima possibilità", "em 24 horas", "imediatamente", "última chance",
        "срочно", "в течение 24 часов", "немедленно", "последнее предупреждение", "binnen 24 uur", "onmiddellijk",
        "pilne", "natychmiast",
    ),
    "account": (
        "verify your account", "confirm your account", "confirm your identity", "verify your identity",
        "account has been suspended", "account has been limited", "account will be closed", "account suspended",
        "unusual activity", "unauthorized login", "suspicious activity", "update your billing",
        "update your payment", "password expires", "password will expire", "mailbox is full", "mailbox quota",
        "storage limit", "reset your password immediately", "validate your", "reactivate your", "seed phrase",
        "recovery phrase", "connect your wallet", "customs fee", "redelivery fee", "delivery failed",
        "parcel is waiting", "tax refund", "konto wurde gesperrt", "konto bestätigen", "bestätigen sie ihre",
        "konto eingeschränkt", "zollgebühr", "ungewöhnliche aktivität", "daten aktualisieren", "postfach ist voll",
        "paket konnte nicht", "steuererstattung", "compte a été suspendu", "confirmez votre",
        "vérifiez votre compte", "frais de douane", "mettre à jour vos", "cuenta ha sido suspendida",
        "verifique su cuenta", "confirme su identidad", "actualice sus datos", "conto è stato sospeso",
        "verifica il tuo account", "aggiorna i tuoi dati", "conto sospeso", "conta foi suspensa",
        "confirme sua conta", "verifique sua conta", "atualize seus dados", "ваш аккаунт заблокирован",
        "подтвердите ваш", "подтвердите аккаунт", "ваша карта заблокирована", "account is geblokkeerd",
        "bevestig uw gegevens", "konto zostało zablokowane", "potwierdź swoje dane",
    ),
    "goods": (
        "viagra", "cialis", "levitra", "weight loss", "lose weight", "male enhancement", "online pharmacy",
        "cheap meds", "no prescription", "replica watches", "rolex", "casino", "free spins", "hot singles",
        "adult dating", "sexy", "horny", "miracle cure", "cbd gummies", "keto", "herbal", "penis", "hair loss",
        "abnehmen", "potenzmittel", "rezeptfrei", "heiße singles", "freispiele", "perte de poids",
        "sans ordonnance", "rencontres coquines", "perder peso", "sin receta", "casino en línea", "perdere peso",
        "senza ricetta", "emagrecer", "sem receita", "похудеть", "казино", "виагра", "знакомства для взрослых",
    ),
    "offers": (
        "first page of google", "rank your website", "seo services", "backlinks", "website traffic", "email list",
        "bulk email", "leads for your business", "web design services", "increase your sales",
        "app development company", "click here", "click below", "buy now", "order now", "special promotion",
        "risk free", "satisfaction guaranteed", "money back", "free trial", "100 free", "unbeatable price",
        "lowest price", "this is not spam", "once in a lifetime", "hier klicken", "jetzt bestellen",
        "jetzt zugreifen", "cliquez ici", "commandez maintenant", "haga clic aquí", "compre ahora", "clicca qui",
        "acquista ora", "clique aqui", "compre agora", "нажмите здесь", "продвижение сайтов", "закажите сейчас",
        "klik hier", "kliknij tutaj",
    ),
    "threats": (
        "i recorded you", "your webcam", "i have access to your", "i hacked your", "hacked your device",
        "your contacts", "adult websites", "pay in bitcoin", "bitcoin wallet", "send bitcoin", "btc wallet",
        "btc address", "bitcoin address", "embarrassing video", "legal action", "arrest warrant",
        "you have 48 hours", "ihre webcam", "ich habe zugriff", "ihre kontakte", "bitcoin adresse", "votre webcam",
        "vos contacts", "portefeuille bitcoin", "tu cámara web", "sus contactos", "billetera bitcoin",
        "la tua webcam", "ваша камера", "веб камера", "биткоин кошелек", "я взломал", "ваши контакты",
    ),
    "letters": (
        "dear friend", "dear sir madam", "dear beneficiary", "dear customer", "dear user", "dear valued",
        "dearest one", "good day to you", "greetings of the day", "confidential business", "strictly confidential",
        "mutual benefit", "god bless you", "business proposal", "foreign partner", "barrister",
        "i am contacting you", "honest person", "investment opportunity", "lieber freund", "sehr geehrter kunde",
        "geschäftsvorschlag", "cher ami", "cher client", "proposition d affaires", "estimado cliente",
        "querido amigo", "propuesta de negocios", "caro amico", "gentile cliente", "caro cliente",
        "prezado cliente", "дорогой друг", "уважаемый клиент", "деловое предложение", "geachte klant",
        "szanowny kliencie",
    ),
}  # fmt: skip
#: Of languages that put no space between words.
_UNSPACED: Final = tuple(
    (kind, phrase, phrase.encode())
    for kind, phrases in (
        ("money", ("中奖", "当選", "贷款", "副業")),
        ("account", ("账户异常", "アカウントが", "異常な", "本人確認")),
        ("urgency", ("立即", "至急", "緊急")),
        ("offers", ("代开发票", "开发票", "点击这里", "こちらをクリック")),
        ("goods", ("赌场",)),
    )
    for phrase in phrases
)

#: ASCII punctuation and white space to spaces; all other bytes of UTF-8 are letters here.
_SPACES: Final = bytes(c if chr(c).isalnum() or not chr(c).isascii() else ord(" ") for c in range(256))
#: Word -> (kind, phrase, its form between spaces) of phrases whose longest word it is.
_INDEX: Final[dict[bytes, list[tuple[str, str, bytes]]]] = {}
for _kind, _phrases in PHRASES.items():
    for _phrase in _phrases:
        _words = _phrase.encode().translate(_SPACES).split()
        _INDEX.setdefault(max(_words, key=len), []).append((_kind, _phrase, b" " + b" ".join(_words) + b" "))
_KEYS: Final = frozenset(_INDEX)
#: Typographic punctuation, which stands for what ASCII has, and what is not seen at all; by how each begins in UTF-8.
_PUNCTUATION: Final = {
    b"\xc2": [each.encode() for each in "\u00a0\u00a1\u00ab\u00b4\u00bb\u00bf"],
    b"\xe2\x80": [each.encode() for each in "\u2010\u2011\u2013\u2014\u2018\u2019\u201c\u201d\u201e\u2022\u2026\u202f"],
}
_UNSEEN: Final = [each.encode() for each in "\u00ad\u034f\u200b\u200c\u200d\u2060\ufeff"]
#: Bytes that begin most characters of Chinese and Japanese.
_UNSPACED_BYTES: Final = tuple(bytes([c]) for c in range(0xE3, 0xEA))
#: As much is searched for these: each is a search through all of the text.
_UNSPACED_MAX: Final = 8_000


def found_in(text: bytes) -> dict[str, list[str]]:
    """The phrases in a text in lower case and UTF-8, by their kind."""
    found: dict[str, list[str]] = {}
    if not text.isascii():
        text = _plain(text)
        if any(each in text for each in _UNSPACED_BYTES):
            begun = text[:_UNSPACED_MAX]
            for kind, phrase, data in _UNSPACED:
                if data in begun:
                    found.setdefault(kind, []).append(phrase)
    words = text.translate(_SPACES).split()
    known = _KEYS.intersection(words)
    if known:
        line = b" " + b" ".join(words) + b" "
        for word in sorted(known):
            for kind, phrase, between in _INDEX[word]:
                if between in line:
                    found.setdefault(kind, []).append(phrase)
    return found


def _plain(text: bytes) -> bytes:
    for each in _UNSEEN:
        text = text.replace(each, b"")
    for begin, marks in _PUNCTUATION.items():
        if begin in text:
            for mark in marks:
                text = text.replace(mark, b" ")
    return text
