"""What people write and what they are called, language by language. Data alone; called by pools, headers and bodies.

Rule 1: every word can be written in every charset that its language is sent in (``pools.VARIANTS``).
Rule 2: nothing here needs escaping in HTML, and every domain is reserved for documentation or tests (RFC 2606).
"""
# ruff: noqa: RUF001, SIM905 - letters that look like Latin ones are the point, and a list of words reads best as text

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Language:
    """One language as mail uses it."""

    words: tuple[str, ...]
    #: Between words: nothing in Chinese and Japanese.
    glue: str
    #: Ends a sentence.
    stop: str
    subjects: tuple[str, ...]
    greeting: tuple[str, ...]
    closing: tuple[str, ...]
    #: Before what a reply quotes.
    wrote: str
    #: (name as it is shown, local part of the address).
    people: tuple[tuple[str, str], ...]


_ENGLISH: Final = Language(
    words=tuple(
        """the of and to in that is for on with as was by be at from this are or an which but not have one all
        their been more will about when would there time order team report meeting customer project change number price
        release
        service question answer library window garden river winter morning paper letter street market office review
        budget draft schedule delivery because through another between without against already perhaps enough however
        version account contract holiday station kitchen machine picture evening problem""".split()
    ),
    glue=" ",
    stop=".",
    subjects=(
        "Minutes of the weekly meeting",
        "Invoice for your last order",
        "Your parcel is on its way",
        "Budget for the next quarter",
        "Photos from the trip",
        "Please review the attached draft",
        "Password changed on a new device",
        "Weekend plans?",
        'Question about clause 7 (b), "notice period"',
        "URGENT: server room too warm",
        "Lunch on Thursday",
        "Contract renewal, third and last reminder before the end of the notice period that we agreed upon",
        "Draft agenda",
        "Your booking",
        "Release notes",
        "Interview on Monday: who comes when",
    ),
    greeting=("Hello,", ""),
    closing=(
        "",
        "...and one more thing:",
        "From here on, please use the new address.",
        "",
        "Kind regards",
        "-- ",
        "Ann",
    ),
    wrote="On Monday, you wrote:",
    people=(
        ("Ada Byron", "ada.byron"),
        ("Liam O'Neill", "liam.oneill"),
        ("Grace Tan", "grace.tan"),
        ("Smith, John (Accounts)", "john.smith"),
        ("Chidi Okafor", "chidi"),
        ('Robert "Bob" Hill', "bob.hill"),
        ("mary@home", "mary+lists"),
        ("Dr. Eleanor Fairweather-Thistlethwaite, Chief Operating Officer, Northern Region", "eleanor.fairweather"),
    ),
)

_TYPOGRAPHIC: Final = ("café", "naïve", "“quoted”", "€25", "déjà", "–", "it’s", "résumé", "…")

#: English with what us-ascii has not; all of it is in windows-1252.
_ENGLISH_TYPOGRAPHIC: Final = Language(
    words=_ENGLISH.words + _TYPOGRAPHIC,
    glue=" ",
    stop=".",
    subjects=(
        "Budget – next quarter",
        "Your résumé",
        "“Final” draft",
        "€25 off your next order",
        "Café on Friday?",
        "It’s a date",
        "Déjà vu: the same invoice again",
        "Terms & conditions – the changes from the first of next month that concern your account and its naïve owner",
    ),
    greeting=("Hello –", ""),
    closing=("", "It’s been a pleasure.", "", "Kind regards", "-- ", "Zoë"),
    wrote="On Monday, you wrote:",
    people=(("Zoë Brontë", "zoe.bronte"), ("José Nuñez", "jose.nunez"), ("Siân Llewellyn–Price", "sian")),
)

_EMOJI: Final = Language(
    words=(*_ENGLISH.words[:60], "🎉", "😀", "👍", "🚀", "❤️", "👩‍💻", "🇩🇪", "☕", "🙏🏽"),
    glue=" ",
    stop="!",
    subjects=(
        "🎉 We made it!",
        "Lunch? 🍜",
        "👍",
        "Ship it 🚀🚀🚀",
        "Happy birthday 🎂",
        "👩‍💻 New colleague",
        "Holiday photos 🏖️",
        "❤️ Thank you all for the flowers 💐, the cake 🎂, the song 🎶 and the card with all of your names on it 🙏🏽",
    ),
    greeting=("Hi 👋", ""),
    closing=("", "🙏🏽", "Kim"),
    wrote="On Monday, you wrote:",
    people=(("Kim 🌻", "kim"), ("🚀 Launch Team", "launch"), ("Alex ☕", "alex")),
)

_GERMAN: Final = Language(
    words=tuple(
        """der die das und in zu den mit sich auf für ist im dem nicht ein eine als auch es an werden aus er hat dass
        sie nach wird bei einer um am sind noch wie einem über einen so zum war haben nur oder aber vor zur bis mehr
        durch man sein wurde sei Straße Größe Übung Öffnung Änderung Prüfung Gespräch Lösung Gebühr Rechnung
        Lieferung Besprechung Zeitraum Ergebnis müssen können würde heißt schließlich natürlich später früher
        Donaudampfschifffahrtsgesellschaft""".split()
    ),
    glue=" ",
    stop=".",
    subjects=(
        "Grüße aus München, und eine Frage",
        "Rechnung für Ihre Bestellung",
        "Terminänderung",
        "Prüfbericht zur Freigabe",
        "Übergabe am Freitag",
        "Kündigung Ihres Vertrages: Bestätigung, Fristen und nächste Schritte, die Sie bis Monatsende prüfen müssen",
        "Urlaubsplanung",
        "Fällige Gebühren",
    ),
    greeting=("Sehr geehrte Damen und Herren,", ""),
    closing=("", "Mit freundlichen Grüßen", "-- ", "Jürgen Weiß"),
    wrote="Am Montag schrieben Sie:",
    people=(
        ("Ines Müller", "ines.mueller"),
        ("Jürgen Weiß", "juergen.weiss"),
        ("Weiß, Jürgen (Einkauf)", "j.weiss"),
        ("Björn Åkesson", "bjorn.akesson"),
        ("Geschäftsstelle der Gesellschaft für angewandte Prüfverfahren e. V., Außenstelle Süd", "geschaeftsstelle"),
    ),
)

_FRENCH: Final = Language(
    words=tuple(
        """de la le et les des en un du une que est pour qui dans a par plus pas au sur ne se ce il sont avec ont
        cette mais comme on ou si leur été être fait après très où déjà même société année première réunion été
        français marché développement président système numéro qualité équipe façon problème côté près jusqu'à
        aujourd'hui c'est-à-dire bientôt maître forêt hôtel""".split()
    ),
    glue=" ",
    stop=".",
    subjects=(
        "Réunion reportée à jeudi",
        "Votre commande a été expédiée",
        "Compte rendu",
        "Facture impayée",
        "Invitation à déjeuner",
        "Résiliation de votre contrat : délais, pièces à fournir et démarches à effectuer avant la fin de février",
        "Congés d'été",
        "Mise à jour",
    ),
    greeting=("Bonjour,", ""),
    closing=("", "Bien à vous,", "-- ", "Danièle Lefèvre"),
    wrote="Lundi, vous avez écrit :",
    people=(
        ("Danièle Lefèvre", "d.lefevre"),
        ("François Côté", "francois.cote"),
        ("Service après-vente de la Société générale des façades", "sav"),
    ),
)

_RUSSIAN: Final = Language(
    words=tuple(
        """и в не на я быть он с что а по это она этот к но они мы весь который из у то за свой ее год от так для ты
        же все тот мочь вы человек такой его сказать один еще уже до время если самый когда другой вопрос работа
        отчет встреча договор проект заказ клиент деньги город неделя месяц письмо ответ сторона система случай
        правительство""".split()
    ),
    glue=" ",
    stop=".",
    subjects=(
        "Отчёт за неделю",
        "Счет на оплату",
        "Встреча переносится",
        "Договор на подпись",
        "Вопрос по заказу",
        "Продление договора: сроки, документы и порядок оплаты, которые надо согласовать до конца текущего месяца",
        "Отпуск",
        "Новые цены",
    ),
    greeting=("Здравствуйте,", ""),
    closing=("", "С уважением,", "Екатерина Иванова"),
    wrote="В понедельник вы писали:",
    people=(
        ("Екатерина Иванова", "katya"),
        ("Дмитрий Соколов", "d.sokolov"),
        ("Отдел по работе с клиентами и партнерами, Санкт-Петербург", "otdel"),
    ),
)

_JAPANESE: Final = Language(
    words=tuple(
        """会議 資料 お世話 になって おります よろしく お願い いたします 確認 ください ありがとう ございます 明日 の
        に は を が と で も から まで について 予定 変更 連絡 担当 部長 会社 東京 大阪 注文 商品 発送 請求書 見積
        プロジェクト システム メール サーバー 添付 ファイル 、 、 。 です ます でした ました""".split()
    ),
    glue="",
    stop="。",
    subjects=(
        "会議の議事録について",
        "請求書送付のご案内",
        "お見積りの件",
        "発送のお知らせ",
        "打ち合わせの日程",
        "年末年始の休業期間およびお問い合わせ窓口の変更ならびにシステムメンテナンスの実施に関する重要なお知らせ",
        "ご確認ください",
        "送別会",
    ),
    greeting=("お世話になっております。", ""),
    closing=("", "よろしくお願いいたします。", "田中"),
    wrote="月曜日のメール：",
    people=(
        ("田中 浩", "h.tanaka"),
        ("鈴木 一郎", "suzuki"),
        ("株式会社サンプル カスタマーサポートセンター 担当 佐藤", "support.jp"),
    ),
)

_ARABIC: Final = Language(
    words=tuple(
        """في من على إلى أن هذا التي الذي عن مع كان ما هذه بعد كل بين يوم قبل حتى وقد العمل الاجتماع المشروع الطلب
        التقرير العميل السعر الشركة المدينة الأسبوع الشهر السنة الرسالة الجواب السؤال شكرا مرحبا اليوم غدا""".split()
    ),
    glue=" ",
    stop=".",
    subjects=(
        "محضر الاجتماع",
        "فاتورة طلبكم الأخير",
        "سؤال حول المشروع",
        "تم شحن طلبكم",
        "موعد جديد",
        "تجديد العقد والمواعيد النهائية والوثائق المطلوبة التي يجب تقديمها قبل نهاية الشهر الحالي",
        "الإجازة",
        "تقرير الأسبوع",
    ),
    greeting=("السلام عليكم،", ""),
    closing=("", "مع التحية،", "فاطمة الزهراء"),
    wrote="كتبتم يوم الاثنين:",
    people=(("فاطمة الزهراء", "fatima"), ("أحمد المصري", "ahmed")),
)

_CHINESE: Final = Language(
    words=tuple(
        """我们 会议 项目 报告 客户 时间 请 您 的 了 在 是 和 有 这个 那个 公司 北京 上海 明天 今天 下周 订单 价格
        发票 合同 附件 确认 谢谢 问题 回复 邮件 系统 服务 团队 工作 可以 需要 已经 ， ， 。 以及 因为 所以""".split()
    ),
    glue="",
    stop="。",
    subjects=(
        "会议纪要",
        "您的订单已发货",
        "关于合同的问题",
        "发票已开具",
        "下周的安排",
        "关于国庆节放假期间客户服务热线值班安排以及系统维护升级时间的通知，请各部门负责人务必确认并回复",
        "谢谢",
        "新价格表",
    ),
    greeting=("您好，", ""),
    closing=("", "此致敬礼", "王小明"),
    wrote="您在星期一写道：",
    people=(("王小明", "wang.xm"), ("李 丽", "lili"), ("上海样例科技有限公司 客户服务部", "kefu")),
)

LANGUAGES: Final[Mapping[str, Language]] = {
    "en": _ENGLISH,
    "en-typographic": _ENGLISH_TYPOGRAPHIC,
    "emoji": _EMOJI,
    "de": _GERMAN,
    "fr": _FRENCH,
    "ru": _RUSSIAN,
    "ja": _JAPANESE,
    "ar": _ARABIC,
    "zh": _CHINESE,
}

DOMAINS: Final = (
    "example.com", "example.net", "example.org", "mail.example", "shop.example", "team.example", "uni.example",
    "post.example.net", "intranet.example.com", "xn--mller-kva.example", "a-rather-long-domain-name.example.org",
    "bank.test",
)  # fmt: skip
#: Machines that write by themselves: (name, local part).
ROBOTS: Final = (
    ("Build server", "ci"), ("", "noreply"), ("Ticket system", "tickets"), ("Monitoring", "alerts"),
    ("Your Shop", "orders"), ("Calendar", "calendar-notification"), ("Newsletter", "news"), ("Zeitung für alle", "abo"),
)  # fmt: skip
SPAMMERS: Final = (
    ("CANADIAN PHARMACY", "x8a7f"), ("Mr. Barrister Johnson", "barrister.johnson1971"), ("PayPaI Security", "service"),
    ("Hot Stocks", "winner"), ("Администрация", "admin"), ("中奖通知", "lucky888"), ("ann", "ann"), ("", "mailer"),
)  # fmt: skip
SPAM_SUBJECTS: Final = (
    "Cheap meds, no prescr1ption needed!!!", "You have WON 1,000,000 USD", "RE: your account has been limited",
    "Make $$$ from home", "\U0001f525 Last chance \U0001f525", "Вы выиграли приз", "恭喜您中奖了",
    "CONFIDENTIAL BUSINESS PROPOSAL", "Ro1ex replicas -80%", "Invoice overdue - open at once",
)  # fmt: skip
#: (short name, posting address, what it is for): mailing lists (RFC 2919, RFC 2369).
LISTS: Final = (
    ("dev", "dev@lists.example.org", "Development"), ("users", "users@lists.example.org", "Questions of users"),
    ("announce", "announce@lists.example.net", "Announcements"),
    ("chess-club", "chess@groups.example.com", "Chess club"),
)  # fmt: skip
