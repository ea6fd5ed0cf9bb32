# ruff: noqa: E501, RUF001  # letters are as they were written
"""Letters that were written for the test: what a server without a filter of its own would deliver, and what each is.

No rule was written for one letter; those that the rules get wrong are among them, and are counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from zlib import crc32

_DATE = "Mon, 03 Jun 2024 10:00:00 +0000"


@dataclass(frozen=True, kw_only=True)
class Letter:
    """A letter in short."""

    spam: bool
    author: str
    subject: str
    text: str = ""
    html: str = ""
    to: str = "ann@team.example"
    files: tuple[tuple[str, str], ...] = ()
    more: tuple[tuple[str, str], ...] = ()
    without: tuple[str, ...] = field(default=())

    def raw(self) -> bytes:
        """The letter as bytes."""
        fields = {
            "From": self.author,
            "To": self.to,
            "Date": _DATE,
            "Message-ID": f"<{crc32(self.subject.encode())}@x.example>",
            "Subject": self.subject,
            "MIME-Version": "1.0",
        }
        lines = [f"{name}: {value}" for name, value in (*fields.items(), *self.more) if name not in self.without]
        lines += ["Content-Type: multipart/mixed; boundary=b", "", *self._parts(), "--b--", ""]
        return "\r\n".join(lines).encode()

    def _parts(self) -> list[str]:
        parts = []
        for kind, body in (("plain", self.text), ("html", self.html)):
            if body:
                parts += ["--b", f"Content-Type: text/{kind}; charset=utf-8", "", body]
        for name, content_type in self.files:
            head = f'Content-Disposition: attachment; filename="{name}"'
            parts += ["--b", f"Content-Type: {content_type}", head, "", "data"]
        return parts


def _auth(spf: str, dkim: str, dmarc: str) -> tuple[tuple[str, str], ...]:
    return (("Authentication-Results", f"mx.team.example; spf={spf}; dkim={dkim}; dmarc={dmarc}"),)


_FAIL = _auth("fail", "none", "fail")
_SOFT = _auth("softfail", "none", "none")
_PASS = _auth("pass", "pass", "pass")
_LIST = (("List-Unsubscribe", "<https://news.example/leave>"), ("List-Id", "<news.shop.example>"), *_PASS)
_THREAD = (("In-Reply-To", "<1@team.example>"), ("References", "<1@team.example>"))


def _spam(author: str, subject: str, text: str = "", html: str = "", **more: object) -> Letter:
    return Letter(spam=True, author=author, subject=subject, text=text, html=html, **more)  # type: ignore[arg-type]


def _ham(author: str, subject: str, text: str = "", html: str = "", **more: object) -> Letter:
    return Letter(spam=False, author=author, subject=subject, text=text, html=html, **more)  # type: ignore[arg-type]


SPAM = (
    _spam("Barrister Paul Obi <paul.obi@lawfirm.example>", "URGENT BUSINESS PROPOSAL",
          "Dear friend,\nI am contacting you about the inheritance of a late client who left 18.5 million dollars and no next"
          " of kin. I need an honest person as the beneficiary. Strictly confidential.",
          more=(("Reply-To", "paulobi1971@gmail.com"), *_SOFT)),
    _spam("Mrs. Grace <grace@hotel.example>", "Dearest one in the Lord", "Dearest one, I am a widow with a tumour. I want to"
          " transfer the sum of 4 million euros to you for charity. God bless you.", to="undisclosed-recipients:;",
          more=(("Reply-To", "grace.widow@yahoo.com"),)),
    _spam("PayPal Service <service@pp-check.example>", "Your account has been limited!!",
          html='<p>Dear customer, unusual activity. Verify your account within 24 hours:</p>'
          '<a href="http://198.51.100.4/login">https://www.paypal.com/signin</a>', more=_FAIL),
    _spam("Microsoft Office 365 <no-reply@mail-box.example>", "Your mailbox is full",
          html='Your mailbox quota is used up. <a href="https://bit.ly/3xyz">Keep my password</a> or it will be closed.'
          " Password expires today, act now.", more=_SOFT),
    _spam("DHL Express <info@parcel77.example>", "Your parcel is waiting", "Delivery failed. Pay the customs fee of 1,99 EUR"
          " within 48 hours: http://dhl.com@203.0.113.9/pay", more=_SOFT),
    _spam("amazon <order@arnazon.com>", "Your order could not be shipped", "Update your payment: http://www.arnazon.com/billing",
          html='<a href="http://www.arnazon.com/billing">www.amazon.com</a>'),
    _spam("Lisa <lisa@dates.example>", "hot singles near you", "Hot singles and adult dating in your area, no card."
          " Click here: http://tinyurl.com/abc", without=("Message-ID",)),
    _spam("Rx <rx@pills.example>", "V-I-A-G-R-A for less", "Viagra, cialis and levitra, no prescription, online pharmacy."
          " Order now http://pills.example", without=("Message-ID", "Date")),
    _spam("Rolex Outlet <sale@watch.example>", "REPLICA WATCHES -80% TODAY ONLY!!!", "Rolex replica watches, lowest price,"
          " buy now, satisfaction guaranteed, limited time.", more=_SOFT),
    _spam("Hacker <ann@team.example>", "I recorded you", "I hacked your device and have access to your contacts. I recorded you"
          " on your webcam on adult websites. Pay in bitcoin to my btc wallet: you have 48 hours.", more=_FAIL),
    _spam("anon <x9@host.example>", "Final warning", "i have access to your files and an embarrassing video. Send bitcoin to"
          " this bitcoin address immediately.", without=("Message-ID",)),
    _spam("Growth <hi@seo-rank.example>", "First page of Google guaranteed", "We offer SEO services, backlinks and website traffic."
          " First page of Google, lowest price, risk free, money back. Click here to begin.",
          more=(("Reply-To", "seo.rank.pro@gmail.com"),)),
    _spam("Accounts <billing@vendor.example>", "Overdue invoice", "See the invoice. Pay immediately.",
          files=(("invoice.pdf.exe", "application/octet-stream"),)),
    _spam("Scanner <scan@team.example>", "Scan from printer", "See attached.", files=(("scan_0012.js", "application/javascript"),),
          more=_FAIL),
    _spam("HR <hr@salary-review.example>", "Salary review", "The archive is protected. Password: 2024",
          files=(("review.zip", "application/zip"),), more=_FAIL),
    _spam("Voice <vm@pbx.example>", "New voice message", "You have a new message. Verify your identity to listen.",
          files=(("voicemail.html", "text/html"),), more=(*_SOFT, ("Reply-To", "pbx.voice@outlook.com"))),
    _spam("Lotto <win@lotto.example>", "YOU WON THE LOTTERY", "You have won the lottery, a cash prize of one million dollars."
          " Send your data, dear beneficiary.", to="undisclosed-recipients:;"),
    _spam("Crypto <team@coin-x.example>", "Double your money", "Guaranteed returns with our trading bot. Double your deposit,"
          " passive income, financial freedom. Act now, last chance!", more=_SOFT),
    _spam("MetaMask <support@wallet-sync.example>", "Wallet suspended", "Your account has been suspended. Connect your wallet and"
          " enter your seed phrase: https://rb.gy/x", more=_SOFT),
    _spam("Bank <info@bank-check.example>", "Sicherheitshinweis", "Sehr geehrter Kunde, Ihr Konto wurde gesperrt. Bitte bestätigen Sie"
          " Ihre Daten innerhalb von 24 Stunden: http://192.0.2.8/konto", more=_FAIL),
    _spam("Sparkasse <service@s-push.example>", "Ihr Konto wurde eingeschränkt", "Konto eingeschränkt. Konto bestätigen: umgehend!",
          html='<a href="http://s-push.example/x">www.sparkasse.de</a>'),
    _spam("Kredit <kredit@geld.example>", "Sofortkredit ohne Schufa!!", "Sofortkredit, ohne Schufa, schnelles Geld. Jetzt zugreifen,"
          " hier klicken: http://is.gd/k", without=("Message-ID",)),
    _spam("La Poste <info@colis.example>", "Dernier avis", "Cher client, votre colis attend. Frais de douane 1,99 EUR, sous 24 heures."
          " Confirmez votre adresse: http://198.51.100.77/c", more=_SOFT),
    _spam("Loterie <gain@loterie.example>", "Vous avez gagné", "Vous avez gagné à la loterie: millions d'euros. Cher ami, répondez.",
          more=(("Reply-To", "loterie.gain@yahoo.com"),)),
    _spam("Banco <aviso@banco-seguro.example>", "Último aviso", "Estimado cliente, su cuenta ha sido suspendida. Verifique su cuenta en"
          " 24 horas: http://203.0.113.50/b", more=_FAIL),
    _spam("Poste Italiane <avviso@poste-id.example>", "Ultimo avviso", "Gentile cliente, il conto è stato sospeso. Aggiorna i tuoi dati"
          " entro 24 ore. Clicca qui: https://cutt.ly/p", more=_SOFT),
    _spam("Loteria <premio@loteria.example>", "Você ganhou", "Prezado cliente, você ganhou 2 milhões de dólares. Clique aqui, última"
          " chance: http://t.ly/a", to="undisclosed-recipients:;"),
    _spam("Казино <promo@casino.example>", "Казино: бонус", "Вы выиграли! Казино, быстрый кредит, пассивный доход. Нажмите здесь:"
          " http://clck.ru/x", without=("Message-ID",)),
    _spam("Банк <info@card-block.example>", "Ваша карта заблокирована", "Уважаемый клиент, ваша карта заблокирована. Подтвердите ваш"
          " пароль в течение 24 часов: http://192.0.2.77/", more=_SOFT),
    _spam("发票 <fp@tax.example>", "代开发票", "代开发票，点击这里，立即联系。", to="undisclosed-recipients:;",
          without=("Message-ID", "Date")),
    _spam("support@paypal.com <x1@vps.example>", "Receipt for your payment", "You paid 899 USD. If it was not you, confirm your identity:"
          " https://paypal.vps.example", more=_SOFT),
    _spam("Aррlе ID <id@appleid.example>", "Your Aррlе ID was used", "Your Aррlе ID was used on a new device. Verify your account.",
          more=_FAIL),
    _spam("News <n@n.example>", "Weekly", html="<img src=http://n.example/a.png>", more=_SOFT, without=("Message-ID", "Date"),
          to="undisclosed-recipients:;"),
    _spam("Shop <s@s.example>", "Keto cure", "L\u200bose wei\u200bght with ke\u200bto gum\u200bmies: weight loss, herbal miracle cure."
          " Buy now, free trial.", more=_SOFT),
    _spam("Prize <p@p.example>", "\U0001d406\U0001d422\U0001d41f\U0001d42d \U0001d402\U0001d41a\U0001d42b\U0001d41d", "Claim your gift card"
          " today, you won. Click here http://ow.ly/1", more=_SOFT),
    _spam("Boss <ceo.private@gmail.com>", "Quick task", "Are you at your desk? I need gift cards for a client, urgent. Send me the codes."),
)  # fmt: skip

HAM = (
    _ham("Bob <bob@team.example>", "Lunch?", "Shall we have lunch on Thursday? The new place is open.", more=_PASS),
    _ham("Bob <bob@team.example>", "Re: Lunch?", "Thursday is fine.\n> Shall we have lunch?", more=_THREAD),
    _ham("Carla Gómez <carla@cliente.example>", "Presupuesto", "Hola Ann, te mando el presupuesto. ¿Hablamos mañana? Saludos"),
    _ham("Jürgen Groß <juergen@firma.example>", "Angebot Nr. 2024-17", "Sehr geehrte Frau Ann, anbei das Angebot. Mit freundlichen Grüßen",
         files=(("Angebot.pdf", "application/pdf"),), more=_PASS),
    _ham("Marie <marie@societe.example>", "Réunion de lundi", "Bonjour, la réunion est à 10 h. Le lien suit. Cordialement"),
    _ham("Пётр <petr@firma.example>", "Отчёт за май", "Добрый день! Отправляю отчёт за май, посмотрите, пожалуйста. Спасибо.",
         files=(("Отчёт.xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),)),
    _ham("田中 <tanaka@kaisha.example>", "打ち合わせの件", "お世話になっております。明日の打ち合わせは１０時からＡＢＣ会議室です。よろしくお願いします。"),
    _ham("王 <wang@gongsi.example>", "会议纪要", "附件是昨天的会议纪要，请查收。谢谢。"),
    _ham("Ali <ali@sherkat.example>", "جلسه", "سلام، جلسه می\u200cشود فردا. ممنون می\u200cشوم اگر می\u200cتوانید بیایید."),
    _ham("The Shop <news@shop.example>", "Summer sale: 30% off", "Buy now, limited time. Free shipping.",
         '<div style="display:none">Summer is here</div><a href="https://click.mailer.example/1">www.shop.example</a>', more=_LIST),
    _ham("Weekly <news@letters.example>", "This week in tech", "Bitcoin falls, casino stocks rise, and a lottery for visas.",
         '<p>This week</p><a href="https://letters.example/1">Read on</a>', more=_LIST),
    _ham("PayPal <service@paypal.com>", "Receipt for your payment", "You sent a payment of 20 EUR to Books.",
         '<p>You sent a payment</p><a href="https://www.paypal.com/activity">www.paypal.com</a>', more=_PASS),
    _ham("Amazon.de <versand@amazon.de>", "Ihr Paket ist unterwegs", "Ihr Paket kommt morgen.",
         '<a href="https://www.amazon.de/track">Paket verfolgen</a>', more=_PASS),
    _ham("DHL Paket <noreply@dhl.de>", "Ihr Paket kommt heute", "Ihr Paket kommt heute zwischen 12 und 14 Uhr.", more=_PASS),
    _ham("GitHub <notifications@github.com>", "[team/app] Fix the parser (#12)", "Merged #12 into main.\nhttps://github.com/team/app/12",
         more=(("List-Id", "<app.team.github.com>"), *_LIST)),
    _ham("Jenkins <ci@team.example>", "BUILD FAILED: app #812", "Build 812 failed: http://ci.team.example:8080/812", more=_PASS),
    _ham("cron <root@db1.team.example>", "Cron <root@db1> backup", "backup done", without=("MIME-Version",)),
    _ham("Alert <alerts@monitor.example>", "[URGENT] disk full on web-3", "Urgent: disk is 98% full. https://monitor.example/d/3",
         more=_PASS),
    _ham("Security <no-reply@accounts.google.com>", "Security alert", "A new sign-in on Linux. If it was you, do nothing.",
         '<a href="https://accounts.google.com/x">Check activity</a>', more=_PASS),
    _ham("Bank <info@hausbank.example>", "Ihr Kontoauszug", "Ihr Kontoauszug liegt im Postfach der Onlinebank.", more=_PASS),
    _ham("Mum <mum1950@gmail.com>", "FW: photos", "look at these!!", files=(("IMG_1.jpg", "image/jpeg"), ("IMG_2.jpg", "image/jpeg"))),
    _ham("Dad <dad@gmx.de>", "HAPPY BIRTHDAY ANN", "Happy birthday!!! Call us.", more=_PASS),
    _ham("Lawyer <office@kanzlei.example>", "Estate of your aunt", "We write about the inheritance of your aunt. Please call our office.",
         more=_PASS),
    _ham("Support <help@saas.example>", "Reset your password", "You asked for a new password: https://saas.example/reset?t=1", more=_PASS),
    _ham("HR <hr@team.example>", "Payroll documents", "The archive is attached.", files=(("payroll.zip", "application/zip"),), more=_PASS),
    _ham("Dev <dev@team.example>", "installer", "The new build, as discussed.", files=(("setup.msi", "application/x-msi"),), more=_THREAD),
    _ham("Finance <fin@team.example>", "Budget", "With the macros that you asked for.", files=(("budget.xlsm", "application/vnd.ms-excel"),),
         more=_PASS),
    _ham("Travel <booking@hotel.example>", "Your booking 8812", html="<p>Thank you for your booking from 3 to 5 June. Breakfast is at 7."
         "</p><img src=https://hotel.example/l.png>", more=_PASS),
    _ham("Events <tickets@events.example>", "Last chance: early bird tickets", "Last chance for early birds. https://events.example",
         more=_LIST),
    _ham("Dr. Lee <lee@clinic.example>", "Weight loss programme", "Your appointment for the weight loss programme is on Monday.", more=_PASS),
    _ham("List <dev-list@lists.example>", "[dev] Re: RFC: new parser", "On Monday Bob wrote:\n> what about speed?\nIt is fine.",
         more=(("Reply-To", "dev@lists2.example"), ("List-Unsubscribe", "<mailto:leave@lists.example>"), *_THREAD)),
    _ham("Team <team@partner.example>", "Minutes", "The minutes are here: https://docs.partner.example/m", to=", ".join(
        f"p{n}@team.example" for n in range(60)), more=_PASS),
    _ham("Anna <anna@müller.example>", "Bücher", "Die Bücher sind da: https://xn--mller-kva.example/b"),
    _ham("Boss <boss@team.example>", "Urgent: contract", "Please sign the contract as soon as possible, immediately if you can.",
         more=_PASS),
    _ham("Shipping <track@ups.com>", "Delivery failed", "Delivery failed, we try again tomorrow.", more=_PASS),
    _ham("Pineapple Ltd <sales@pineapple.example>", "Quote", "Our quote for the office fruit.", more=_PASS),
)  # fmt: skip
LETTERS = (*SPAM, *HAM)
