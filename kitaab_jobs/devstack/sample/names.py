"""Given and family names by culture, each with the spelling that its e-mail address uses."""

from __future__ import annotations

import unicodedata

# What Unicode does not take apart into a letter and its marks.
_LETTERS = str.maketrans("ıłøđßæœŞş", "ilodsaoSs")


def ascii_name(name: str) -> str:
    """Return `name` in lower-case ASCII letters, for an address: `Ayşe Çelik` is `aysecelik`."""
    plain = unicodedata.normalize("NFKD", name.translate(_LETTERS)).encode("ascii", "ignore").decode()
    return "".join(letter for letter in plain.lower() if letter.isalpha())


# culture -> (given names, family names), separated by spaces; an underscore stands for one.
# A name in Arabic script is followed by its Latin spelling.
_NAMES = {
    "urdu": (
        "Ayesha Fatima Hina Sana Zainab Maryam Iqra Nimra Bilal Usman Hamza Ahmed Omar Imran Faisal Saad Danish",
        "Khan Malik Qureshi Siddiqui Chaudhry Butt Sheikh Raza Baig Mirza Abbasi Javed Iqbal Hashmi",
    ),
    "indonesian": (
        "Siti Dewi Putri Nur Aulia Rina Wulan Fitri Budi Agus Rizky Adi Bayu Fajar Hendra Yusuf Ilham",
        "Santoso Wijaya Pratama Saputra Hidayat Nugroho Rahayu Lestari Susanti Maulana Kurniawan Setiawan",
    ),
    "turkish": (
        "Ayşe Elif Zeynep Merve Büşra Emine Hatice Şule Mehmet Mustafa Emre Yusuf Ömer Çağrı İbrahim Kerem",
        "Yılmaz Demir Çelik Şahin Kaya Öztürk Aydın Yıldız Doğan Arslan Koç Güneş Kılıç",
    ),
    "arab": (
        "محمد/mohamed أحمد/ahmed فاطمة/fatma مريم/mariam يوسف/youssef عمر/omar سارة/sara نور/nour "
        "خالد/khaled هبة/heba ليلى/layla علي/ali سلمى/salma طارق/tarek دينا/dina حسن/hassan",
        "إبراهيم/ibrahim المصري/elmasry السيد/elsayed عبد_الله/abdallah الشريف/alsharif منصور/mansour "
        "حداد/haddad صالح/saleh ناصر/nasser فاروق/farouk خليل/khalil زكي/zaki",
    ),
    "levantine": (
        "Salma Tarek Rania Karim Huda Amr Dina Hassan Maha Ziad Lina Bassam Reem Fadi Noura Sultan",
        "Haddad Saleh Nasser Khoury Khalil Awad Rashid Al_Harbi Al_Otaibi Barakat Hamdan Al_Ali",
    ),
    "bengali": (
        "Nusrat Farzana Sharmin Tasnim Rumana Shirin Rafiq Tanvir Sajid Arif Mahmud Kamal Nayeem Jahid",
        "Rahman Hossain Islam Chowdhury Akter Ahmed Sarkar Uddin Haque Miah Begum Karim",
    ),
    "indian": (
        "Aisha Sameera Nazia Rehana Farah Saba Arshad Irfan Imtiaz Salman Zaid Nadeem Yasin Tariq",
        "Ansari Shaikh Pathan Syed Khatri Momin Memon Farooqui Naqvi Rizvi Mulla Kazi",
    ),
    "english": (
        "Amina Sarah Hannah Yasmin Sofia Layla Adam Yusuf Zain Daniel Idris Haroon Elias Ruth Grace Sam",
        "Ahmed Patel Begum Hussain Taylor Brown Ali Clarke O'Connor Mensah Green Rahman Evans Shah",
    ),
    "persian": (
        "Zahra Narges Parisa Mahsa Laleh Reza Hossein Mehdi Dariush Navid Farhad Wahid Shukria Zalmai",
        "Ahmadi Hosseini Karimi Rahimi Mohammadi Jafari Noori Popal Wardak Stanekzai Haidari",
    ),
    "malay": (
        "Nurul Aisyah Siti Farah Hidayah Amirul Hafiz Syafiq Azlan Faiz Zulkifli Izzati Hakim Wan",
        "Abdullah Ismail Hassan Osman Yusof Ibrahim Rahman Othman Zainal Salleh Bakar",
    ),
    "west_african": (
        "Aminata Fatou Hauwa Zainab Aisha Mariam Ibrahim Musa Abubakar Sani Mamadou Ousmane Kwame Ade",
        "Diallo Bello Traoré Sow Ndiaye Yusuf Garba Camara Cissé Okafor Adeyemi Danladi Mensah",
    ),
    "maghreb": (
        "Khadija Samira Nadia Salma Imane Hajar Youssef Mehdi Hamza Karim Rachid Amine Sofiane Walid",
        "Benali El_Amrani Bouazza Haddad Cherif Belkacem Mansouri Trabelsi Ouali Zeroual Saïdi",
    ),
    "german": (
        "Elif Lena Miriam Jana Amira Layla Murat Jonas Elias Yunus Karim Daniel Björn Sümeyye",
        "Yıldırım Schäfer Müller Kaya Özdemir Weiß Hoffmann Krüger Aslan Bakır Jansen Lindström",
    ),
    "balkan": (
        "Amra Lejla Selma Emina Azra Edin Haris Mirza Adnan Senad Ajša Tarik Jasmin",
        "Hadžić Begić Hodžić Kovačević Delić Mehić Suljić Krasniqi Hoxha Smajić",
    ),
    "nepali": (
        "Sunita Anisha Kabita Sabina Ramesh Bikash Sujan Prakash Salim Nazma Dilip Asha",
        "Shrestha Gurung Thapa Ansari Miya Rai Tamang Perera Fernando Fonseka",
    ),
    "latin": (
        "Lucía María Camila Valentina João Mateus Rafael Diego Omar Samira Ana Inês Thiago Elena",
        "García Silva Souza Rojas Fernández Haddad Saleh Pereira Gómez Nuñez Castillo Abdala",
    ),
    "swahili": (
        "Halima Rehema Mwanaisha Zuhura Saida Juma Rashid Salim Hamisi Abdi Fadhili Amani Hodan Asha",
        "Mohamed Mwangi Omondi Kamau Hassan Farah Salim Mbaruk Warsame Dlamini Jacobs",
    ),
    "turkic": (
        "Nilufar Dilnoza Gulnora Aigerim Madina Timur Rustam Sherzod Azamat Bekzod Nurlan Aslan",
        "Karimov Yusupov Nazarova Rakhimov Abdullaev Omarova Saparov Iskakova Tursunov",
    ),
    "pacific": (
        "Sina Lani Tala Mele Keoni Tavita Ioane Moana Hemi Aroha Matiu Leilani Wiremu Kahu",
        "Faleolo Tuilagi Kealoha Ngata Tamihana Leota Fonoti Kahananui Tearama Paki Whaanga",
    ),
    "east_asian": (
        "Mei Yuki Hana Aisyah Wei Kenji Sora Min Hiroshi Jia Farid Ling",
        "Tanaka Ma Lim Sato Wong Kim Chan Ng Ito Tan Yusof",
    ),
}


def _spelled(words: str) -> tuple[tuple[str, str], ...]:
    """Return each name with its spelling in an address."""
    pairs = (word.replace("_", " ").partition("/") for word in words.split())
    return tuple((name, latin or ascii_name(name)) for name, _, latin in pairs)


NAMES: dict[str, tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]] = {
    culture: (_spelled(given), _spelled(family)) for culture, (given, family) in _NAMES.items()
}
