/* Scripts and shortcuts that bring in programs. Only in attachments: a message may mention them, and so may a file
   that no system runs when it is opened. */

private rule Read_Not_Run
{
    condition:
        file_name matches /\.(txt|md|rst|py|c|h|rs|go|java|yar|csv|log|json|patch|diff|eml|pdf|ics)$/i
}

rule Script_That_Downloads_And_Runs
{
    meta:
        description = "a script that downloads a file, writes it and starts it"
    strings:
        $get1 = "XMLHTTP" nocase ascii wide
        $get2 = "WinHttp" nocase ascii wide
        $get3 = "URLDownloadToFile" nocase ascii wide
        $get4 = "bitsadmin" nocase ascii wide
        $get5 = "-urlcache" nocase ascii wide
        $run1 = "WScript.Shell" nocase ascii wide
        $run2 = "Shell.Application" nocase ascii wide
        $run3 = "ShellExecute" nocase ascii wide
        $write1 = "ADODB.Stream" nocase ascii wide
        $write2 = "SaveToFile" nocase ascii wide
        $write3 = "Scripting.FileSystemObject" nocase ascii wide
    condition:
        kind == "attachment" and not Read_Not_Run and filesize < 4MB and uint16(0) != 0x5A4D and
        any of ($get*) and any of ($run*) and any of ($write*)
}

rule PowerShell_Hidden_Download
{
    meta:
        description = "a command that runs hidden or encoded PowerShell"
    strings:
        $encoded = /powershell(\.exe)?[^\r\n]{0,200} -e(nc|ncodedcommand)? +[A-Za-z0-9+\/=]{40}/ nocase ascii wide
        $hidden = /powershell(\.exe)?[^\r\n]{0,200} -w(indowstyle)? +(h|hidden|1) / nocase ascii wide
        $get1 = "DownloadString" nocase ascii wide
        $get2 = "DownloadFile" nocase ascii wide
        $get3 = "Invoke-WebRequest" nocase ascii wide
        $get4 = "FromBase64String" nocase ascii wide
    condition:
        kind == "attachment" and not Read_Not_Run and filesize < 4MB and ($encoded or ($hidden and any of ($get*)))
}

rule Shortcut_That_Runs_An_Interpreter
{
    meta:
        description = "a Windows shortcut (.lnk) to a command interpreter"
    strings:
        $program1 = "powershell" nocase ascii wide
        $program2 = "cmd.exe" nocase ascii wide
        $program3 = "mshta" nocase ascii wide
        $program4 = "wscript" nocase ascii wide
        $program5 = "rundll32" nocase ascii wide
    condition:
        uint32(0) == 0x0000004C and uint32(4) == 0x00021401 and filesize < 4MB and any of them
}

rule HTML_That_Smuggles_A_Program
{
    meta:
        description = "a web page that builds a program or archive on the reader's machine"
    strings:
        $decode = "atob(" nocase
        $blob1 = "createObjectURL" nocase
        $blob2 = "msSaveOrOpenBlob" nocase
        $name = /download['"]? ?[=,:] ?['"][^'"]{1,100}\.(exe|scr|iso|img|vhdx?|js|vbs|hta|lnk|zip|msi)['"]/ nocase
    condition:
        (kind == "text" or (kind == "attachment" and not Read_Not_Run)) and filesize < 16MB and $decode and any of ($blob*) and $name
}
